# echogen in a container, as an ordinary user.
#
#     docker build -t echogen .
#     docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" echogen \
#         expand --in camus --out camus_aug.zarr
#
# It paints on the CPU; with `docker run --gpus all` on the GPU. PyTorch comes from the default package
# index, whose build for Linux runs on both. PyTorch's own indices have builds for one alone: smaller
# for the CPU, or for another CUDA version. Name one with
#
#     docker build --build-arg TORCH_INDEX=... -t echogen .

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
WORKDIR /src
RUN python -m venv /opt/echogen
ENV PATH=/opt/echogen/bin:$PATH PIP_NO_CACHE_DIR=1
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} 'torch>=2.6,<2.14'
COPY pyproject.toml README.md LICENSE ./
COPY echogen echogen
RUN pip install .

FROM python:3.11-slim
COPY --from=build /opt/echogen /opt/echogen
ENV PATH=/opt/echogen/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
RUN useradd --create-home --uid 1000 echogen
USER echogen
WORKDIR /data
ENTRYPOINT ["echogen"]
CMD ["--help"]
