"""Flask and SQLAlchemy, a thread for each request."""

import os
from datetime import date

from flask import Flask, abort, request
from sqlalchemy import String, create_engine, make_url
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from scripts.bench.contestants.common import greeting, parse

uri = make_url(os.environ["DB_URI"]).set(drivername="postgresql+psycopg2")
# A connection for each of gunicorn's threads.
engine = create_engine(uri, pool_size=8, max_overflow=0)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    username: Mapped[str] = mapped_column(String(64), primary_key=True)
    date_of_birth: Mapped[date]


app = Flask(__name__)


@app.get("/hello/<username>")
def get(username):
    with Session(engine) as session:
        user = session.get(User, username) or abort(404)
        return {"message": greeting(username, user.date_of_birth)}


@app.put("/hello/<username>")
def put(username):
    try:
        born = parse(request.get_data())
    except ValueError:
        abort(400)
    upsert = insert(User).values(username=username, date_of_birth=born)
    with Session(engine) as session:
        session.execute(
            upsert.on_conflict_do_update(
                index_elements=[User.username],
                set_={"date_of_birth": upsert.excluded.date_of_birth},
                where=User.date_of_birth != upsert.excluded.date_of_birth,
            )
        )
        session.commit()
    return "", 204
