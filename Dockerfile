# pixcli on the CPU: docker build -t pixcli . && docker run --rm -v "$PWD/data:/data" pixcli reconstructor \
#   --image_path images --output_path out          (files are then owned by user 1000; --user "$(id -u)" sets another)
FROM python:3.13-slim-trixie AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libceres-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python -m venv /pixcli && /pixcli/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.13-slim-trixie
COPY --from=build /pixcli /pixcli
RUN useradd --uid 1000 --create-home pixcli && mkdir /data && chown pixcli /data
USER pixcli
WORKDIR /data
ENTRYPOINT ["/pixcli/bin/pixcli"]
CMD ["help"]
