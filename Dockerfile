# clip-har in a container: `docker build -t clip-har .`, then see docs/guide/serve.md.
#
# TORCH_INDEX says where torch comes from: by default the CPU build, an image of about 2 GB. For a GPU:
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t clip-har:cuda .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve,export,parquet,video
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/clip-har
ENV PATH=/opt/clip-har/bin:$PATH
# Versions are bounded by pyproject.toml.
# First, and by itself: a change of clip-har then installs only clip-har again.
# hadolint ignore=DL3013
RUN pip install --index-url "${TORCH_INDEX}" torch torchvision
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/clip-har /opt/clip-har
# Everything that is kept is under /cache, which any user may write to (docker run --user); matplotlib writes to /tmp.
ENV PATH=/opt/clip-har/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache \
    MPLCONFIGDIR=/tmp/matplotlib
RUN groupadd --gid 10001 clip-har \
    && useradd --uid 10001 --gid clip-har --no-create-home --home-dir /cache clip-har \
    && install --directory --mode 1777 /cache
USER 10001:10001
VOLUME /cache
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["clip-har"]
CMD ["serve", "/run-folder", "--host", "0.0.0.0"]
