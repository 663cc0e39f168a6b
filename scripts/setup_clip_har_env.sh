#!/usr/bin/env bash
# Makes or updates the conda environment clip_har_env, with whichever of conda's programs is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=clip_har_env
tool=""
for candidate in mamba conda micromamba; do
  if command -v "$candidate" >/dev/null 2>&1; then
    tool=$candidate
    break
  fi
done

if [[ -z $tool ]]; then
  echo "No conda, mamba or micromamba is installed; 'make venv' sets up the same in .venv without them." >&2
  exit 1
fi

echo "Setting up $environment with $tool: about two minutes of download."
if [[ $tool == micromamba ]]; then
  micromamba create --yes --file environment.yml
elif "$tool" env list | awk -v name="$environment" '$1 == name { found = 1 } END { exit !found }'; then
  "$tool" env update --file environment.yml --prune
else
  "$tool" env create --file environment.yml
fi

echo "Done. Next: $tool activate $environment && clip-har quickstart --out quickstart"
