# The base can be pinned: --build-arg BASE=python:3.13-slim-trixie@sha256:…
ARG BASE=python:3.13-slim-trixie

# Every dependency is a wheel, for amd64 and for arm64: this stage needs no compiler. It keeps
# pip, the sources and the tools that build a package out of the image.
FROM ${BASE} AS build
# What is installed, of requirements/: `traces` is what the service needs and what sends traces;
# without that: --build-arg LOCK=runtime
ARG LOCK=traces
WORKDIR /src
# Only the locks, so that this layer outlives changes of the code. Wheels alone: nothing of what
# is fetched runs while it is installed.
COPY requirements requirements
RUN python -m venv /opt/hello \
 && /opt/hello/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
    --requirement requirements/build.txt --requirement "requirements/$LOCK.txt"
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY hello hello
RUN /opt/hello/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation . \
 && /opt/hello/bin/pip uninstall --yes setuptools pip

FROM ${BASE}
COPY --from=build /opt/hello /opt/hello
# Zones are those of the package tzdata alone, as on every other host.
ENV PATH=/opt/hello/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONTZPATH= \
    HOST=0.0.0.0 \
    PORT=8080 \
    ADMIN_PORT=9090
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080 9090
# While it starts it is asked often, later every 10 s: each asking starts a Python.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --start-interval=1s \
    CMD ["hello", "healthcheck"]
# serve becomes gunicorn, which gets the signals.
ENTRYPOINT ["hello"]
CMD ["serve"]
# Last, since they differ from commit to commit.
ARG BASE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hello" \
      org.opencontainers.image.description="A birthday service" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://example.com/hello" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Shown by the metric hello_build_info.
ENV REVISION=${REVISION}
