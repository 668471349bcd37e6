"""Starlette and asyncpg."""

from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scripts.bench.contestants.asyncpg_users import Users
from scripts.bench.contestants.common import greeting, parse

users = Users()


@asynccontextmanager
async def lifespan(app):
    await users.open()
    yield
    await users.close()


async def get(request):
    username = request.path_params["username"]
    born = await users.find(username)
    if born is None:
        return Response(status_code=404)
    return JSONResponse({"message": greeting(username, born)})


async def put(request):
    try:
        born = parse(await request.body())
    except ValueError:
        return Response(status_code=400)
    await users.save(request.path_params["username"], born)
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/hello/{username}", get, methods=["GET"]),
        Route("/hello/{username}", put, methods=["PUT"]),
    ],
    lifespan=lifespan,
)
