# The appliance, from programs that are built already (the build needs an eBPF toolchain, which an image does not).
#
#   cargo build --release -p lb-api --bins
#   docker build -t lbd-lab/lbd:latest -f containerlab/lbd.Dockerfile target/release
#
# The base must not be older than the system that the programs were built on.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl ethtool iproute2 procps tcpdump \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system lbd
COPY lbd lbctl /usr/local/bin/
VOLUME /var/lib/lbd
ENTRYPOINT ["lbd"]
CMD ["-c", "/etc/lbd/lbd.yaml"]
