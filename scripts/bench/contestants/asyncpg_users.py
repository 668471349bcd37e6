"""The users over asyncpg, for the peers on asyncio. asyncpg prepares statements by itself."""

import os
from datetime import date

import asyncpg

FIND = "SELECT date_of_birth FROM users WHERE username = $1"
SAVE = """
INSERT INTO users (username, date_of_birth) VALUES ($1, $2)
ON CONFLICT (username) DO UPDATE SET date_of_birth = EXCLUDED.date_of_birth
WHERE users.date_of_birth <> EXCLUDED.date_of_birth
"""


async def keep(connection) -> None:
    """Nothing changes a connection's state: spare it the query that would reset it."""


class Users:
    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            os.environ["DB_URI"], min_size=32, max_size=32, reset=keep
        )

    async def close(self) -> None:
        await self._pool.close()

    async def find(self, username: str) -> date | None:
        return await self._pool.fetchval(FIND, username)

    async def save(self, username: str, born: date) -> None:
        await self._pool.execute(SAVE, username, born)
