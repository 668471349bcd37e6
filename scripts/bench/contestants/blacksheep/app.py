"""BlackSheep and asyncpg."""

from blacksheep import Application, Request, bad_request, json, no_content, not_found

from scripts.bench.contestants.asyncpg_users import Users
from scripts.bench.contestants.common import greeting, parse

users = Users()
app = Application()


@app.on_start
async def start(app):
    await users.open()


@app.on_stop
async def stop(app):
    await users.close()


@app.router.get("/hello/{username}")
async def get(username: str):
    born = await users.find(username)
    if born is None:
        return not_found()
    return json({"message": greeting(username, born)})


@app.router.put("/hello/{username}")
async def put(request: Request, username: str):
    try:
        born = parse(await request.read() or b"")
    except ValueError:
        return bad_request()
    await users.save(username, born)
    return no_content()
