-- Run by the database's administrator, in the database `hello`, with
--     \set role hello_1
--     \set password …
-- as often as wanted: it makes what is missing, and sets the password.
--
-- `hello` owns the database and what the service's migrations create in it, and so may DELETE from
-- `users`, which serving never does: `python -m hello forget` needs it, and runs in a pod. Nobody logs in as
-- `hello`: the service does as `hello_1` or `hello_2`, and is `hello` from the first statement on.
-- Two, so that a password is changed without a moment in which none works.
SELECT 'CREATE ROLE hello NOLOGIN' WHERE to_regrole('hello') IS NULL \gexec
-- To give the database away, one must be able to become who gets it.
GRANT hello TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;
ALTER DATABASE hello OWNER TO hello;
-- Others have no business here; PostgreSQL lets everybody connect unless told otherwise.
REVOKE ALL ON DATABASE hello FROM PUBLIC;
GRANT CONNECT ON DATABASE hello TO CURRENT_USER;

SELECT format('CREATE ROLE %I', :'role') WHERE to_regrole(:'role') IS NULL \gexec
GRANT hello TO :"role" WITH INHERIT TRUE, SET TRUE;
ALTER ROLE :"role" LOGIN PASSWORD :'password';
ALTER ROLE :"role" SET role = 'hello';
