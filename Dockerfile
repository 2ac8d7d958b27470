# One image for every service; the command chooses the role.
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv
RUN --mount=type=cache,target=/root/.cache pip install uv && uv venv /opt/venv
# The libraries in a layer of their own: a change of our code does not install them again.
RUN --mount=type=bind,source=requirements.lock,target=/tmp/requirements.lock \
    --mount=type=cache,target=/root/.cache \
    uv pip install --require-hashes -r /tmp/requirements.lock
COPY pyproject.toml README.md trimtab.py /src/
COPY shared /src/shared
COPY services /src/services
RUN --mount=type=cache,target=/root/.cache uv pip install --no-deps /src

FROM python:${PYTHON_VERSION}-slim
COPY --from=build /opt/venv /opt/venv
RUN useradd --uid 10001 --no-create-home trimtab && install -d -o trimtab /data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRIMTAB_DATA_DIR=/data NUMBA_CACHE_DIR=/tmp
USER 10001
WORKDIR /data
ENTRYPOINT ["trimtab"]
CMD ["--help"]
