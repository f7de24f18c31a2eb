#!/usr/bin/env bash
# Benchmarks two detectors on drawn parts, torch against the exported bundle, and judges
# the bundle of one of them. Needs PyImgAno installed and about two minutes; downloads
# nothing.
#
#   bash examples/manifest_benchmark_demo.sh [FOLDER]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${1:-benchmark-demo}
if [ -e "$work" ]; then
  echo "$work: already exists; name another folder" >&2
  exit 2
fi
mkdir -p "$work"
cd "$work"

python "$here/draw_part.py" part
pyimgano manifest create --from part

echo "== one detector: what you trained against what runs =="
pyimgano benchmark --dataset manifest --manifest-path part/manifest.jsonl \
  --list-categories
pyimgano benchmark --dataset manifest --manifest-path part/manifest.jsonl \
  --model pixel_stats --output bench

echo "== two detectors, side by side =="
cat > suite.json <<'JSON'
{
  "models": ["pixel_stats", {"name": "patchcore", "preset": "fast"}],
  "datasets": [{"dataset": "manifest", "manifest_path": "part/manifest.jsonl"}]
}
JSON
pyimgano benchmark --suite suite.json --output suite
head -20 suite/leaderboard.md

echo "== may it go to the line? =="
cell=$(ls -d suite/cells/*patchcore*)
pyimgano bundle accept "$cell/bundle" --manifest-path part/manifest.jsonl \
  --min recall=0.6 --max false_alarm_rate=0.1 --max max_abs_score_diff=1e-3 \
  --output acceptance \
  && echo "accepted" || echo "not accepted: see the gates above"
echo "open $work/suite/leaderboard.html"
