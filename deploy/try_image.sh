#!/usr/bin/env bash
# Builds the CPU image without a container engine and tries it. Run it as root, where Debian's packages buildah and
# debootstrap are installed. Arguments go to `buildah bud`: --build-arg for an index, or --volume FROM:TO:ro for what
# this machine's pip needs to find torch's CPU wheel: a pip.conf at /etc/pip.conf, wheels, certificates.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(sed -n 's/^FROM //p' deploy/Dockerfile)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs

# Stands in for the base image of the registry: the same Debian and the same minor version of Python.
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base"
  ln -s python3 "$work/base/usr/bin/python"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$work/base" /
  buildah commit --quiet --rm "$container" "$base"
  rm -rf "$work/base"
fi
# Only this format knows SHELL and HEALTHCHECK.
buildah bud --format docker --pull-never --file deploy/Dockerfile --tag constellate:cpu "$@" .
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' constellate:cpu

cat >"$work/inputs.py" <<'EOF'
import pathlib
import sys

from PIL import Image

sys.path.insert(0, "/tests_of_the_clone")
from tiny_models import make_tiny_checkpoint

make_tiny_checkpoint(pathlib.Path("/tmp/model"))
pathlib.Path("/tmp/images").mkdir()
for i in range(20):
    Image.new("RGB", (64, 48), (12 * i, 100, 255 - 12 * i)).save(f"/tmp/images/{i}.png")
EOF
chmod -R a+rX "$work"
# The container shares this machine's network, so the service in it takes a port of its own.
container=$(buildah from --pull-never constellate:cpu)
trap 'buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
buildah run --user 1000 --volume "$PWD/tests:/tests_of_the_clone:ro" --volume "$work:/inputs:ro" "$container" -- bash -euc '
  test "$(id -u)" = 1000
  cd /tmp
  python -c "import constellate"
  python -c "import pathlib, serve_app; assert (pathlib.Path(serve_app.__file__).parent / \"static/index.html\").is_file()"
  constellate --help >/tmp/help.txt && grep -q embed /tmp/help.txt
  python /inputs/inputs.py
  export HF_HUB_OFFLINE=1 CONSTELLATE_DATASET_ROOTS=/tmp/images CONSTELLATE_PORT=18321
  constellate embed /tmp/images --model /tmp/model --out /tmp/out.parquet
  python -c "import pyarrow.parquet as pq; n = pq.read_metadata(\"/tmp/out.parquet\").num_rows; assert n == 20, n; print(n, \"vectors\")"
'
