# The base is pinned by tag, so that a rebuild takes its security fixes. For an image that can be
# rebuilt bit by bit, pin the digest that `docker buildx imagetools inspect` prints for the tag:
# --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What licet runs on, into an environment without pip; what builds licet, into one that stays here.
# For tracing: --build-arg REQUIREMENTS=tracing.txt
ARG REQUIREMENTS=run.txt
COPY requirements requirements
RUN python -m venv --without-pip /opt/licet \
    && python -m venv /opt/build \
    && python -m pip --python /opt/licet/bin/python install \
        --no-deps --require-hashes --only-binary :all: -r requirements/${REQUIREMENTS} \
    && /opt/build/bin/python -m pip install --no-deps --require-hashes --only-binary :all: \
        -r requirements/build.txt -r requirements/run.txt -r requirements/dev.txt \
    && apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev

COPY LICENSE README.md pyproject.toml hatch_build.py ./
COPY migrations migrations
COPY src src
# The hot path is compiled (docs/decisions/0048-compiled-hot-path.md).
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 /opt/build/bin/hatchling build --target wheel --directory /tmp/wheel \
    && python -m pip --python /opt/licet/bin/python install --no-deps --no-index /tmp/wheel/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="licet" \
      org.opencontainers.image.description="A capability-based authorization service over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"

# Nothing in the image can install anything, and nobody but this user runs in it.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip setuptools wheel \
    && groupadd --system --gid 10001 licet \
    && useradd --system --uid 10001 --gid licet --create-home --home-dir /var/lib/licet \
        --shell /usr/sbin/nologin licet

COPY --from=build /opt/licet /opt/licet

# Reachable from outside the container. licet refuses such an address without TLS, unless
# LICET_INSECURE_BIND=true: whoever runs the image decides which, so neither is set here. The health check below finds the settings of TLS in the same environment.
ENV PATH=/opt/licet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LICET_LISTEN=0.0.0.0:50051

USER 10001:10001
WORKDIR /var/lib/licet
VOLUME /var/lib/licet
EXPOSE 50051

STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["licet", "health"]
ENTRYPOINT ["licet"]
CMD ["serve"]
