# BIRD 2 with the commands that a topology's `exec` lines use.
#
#   docker build -t lbd-lab/bird:2 -f containerlab/bird.Dockerfile containerlab
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends bird2 iproute2 procps tcpdump \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /run/bird
ENTRYPOINT ["bird", "-f", "-c", "/etc/bird/bird.conf"]
