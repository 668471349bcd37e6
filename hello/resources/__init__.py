"""One Falcon class for each URI; hello/app.py has the routes.

This package imports users, checks, problems, body and the domain: nothing of a database, of the
cache or of the server.
"""
