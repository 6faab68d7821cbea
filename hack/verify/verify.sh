#!/usr/bin/env bash
# Runs everything that generates or checks, and is red where that changes the tree: what is committed is what is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The state of the tree, by content, with files that git does not track yet.
state() { git status --porcelain=v1 --untracked-files=all; git diff HEAD; git ls-files -z --others --exclude-standard | xargs -0 -r sha256sum; }

before=$(state)
for step in generate manifests goldens fmt lint imports kustomizations tidy; do
  start=$SECONDS
  make --no-print-directory "$step" || { echo "verify: make $step failed" >&2; exit 1; }
  printf 'verify: %-14s %3d s\n' "$step" $((SECONDS - start))
done
if git grep -nE '@[A-Z_]+@' -- '*.md'; then
  echo "verify: these lines have placeholders that nobody filled in" >&2
  exit 1
fi
if [ "$before" != "$(state)" ]; then
  git status --short
  git --no-pager diff --stat
  echo "verify: the steps above changed the tree: look at the change and commit it" >&2
  exit 1
fi
if [ -n "${CI:-}" ] && [ -n "$(git status --porcelain)" ]; then
  git status --short
  echo "verify: the checkout is not clean" >&2
  exit 1
fi
echo "verify: the tree is as it was"
