"""FastAPI and asyncpg."""

from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

from fastapi import FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from scripts.bench.contestants.asyncpg_users import Users
from scripts.bench.contestants.common import greeting

users = Users()


@asynccontextmanager
async def lifespan(app):
    await users.open()
    yield
    await users.close()


app = FastAPI(lifespan=lifespan)


class Birthday(BaseModel):
    dateOfBirth: date


class Greeting(BaseModel):
    message: str


@app.exception_handler(RequestValidationError)
async def invalid(request, ex):
    return Response(status_code=400)


@app.get("/hello/{username}")
async def get(username: str) -> Greeting:
    born = await users.find(username)
    if born is None:
        raise HTTPException(404)
    return Greeting(message=greeting(username, born))


@app.put("/hello/{username}", status_code=204)
async def put(username: str, birthday: Birthday) -> None:
    if birthday.dateOfBirth > datetime.now(UTC).date():
        raise HTTPException(400)
    await users.save(username, birthday.dateOfBirth)
