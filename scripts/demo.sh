#!/usr/bin/env bash
# From nothing to two pretrained models on synthetic notes, under 5 minutes on two cores after installation.
#   bash scripts/demo.sh [FOLDER]      default: runs/demo
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
demo=${1:-runs/demo}
python=.venv/bin/python
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}
rm -rf "$demo"
mkdir -p "$demo"

say() { printf '\n== %s\n' "$*"; }
sources="[{path: $demo/notes.jsonl, id: id, patient: patient, licence: synthetic, access: open}]"

say "1. synthetic notes: several a patient, with sections, medications, labs, placeholders, duplicates"
$python -m medjax.data.synthetic "$demo/notes.jsonl" --patients 800 --seed 1

prepare() { # family, kind of tokenizer
  $python -m medjax.train_tokenizer --sources "$sources" --kind "$2" --vocab_size 1800 --output "$demo/$1_tokenizer"
  $python -m medjax.prepare --sources "$sources" --tokenizer "$demo/$1_tokenizer" --validation_fraction 0.03 --output "$demo/$1_shards"
}
say "2. a tokenizer and token shards for T5, and for BERT"
prepare t5 unigram
prepare bert wordpiece

pretrain() { # family, overrides
  local family=$1; shift
  $python -m medjax.pretrain "configs/pretrain/${family}_tiny.yaml" --run_dir "$demo/$family" --data "[{path: $demo/${family}_shards}]" \
    --model.vocab_size 1800 --evaluation.batches 4 --evaluation.every 50 --checkpoint.every 50 --loop.log_every 25 "$@"
}
t5=(--loop.steps 120 --loop.batch_size 16 --schedule.warmup_steps 20)
say "3. a small T5, killed after its first checkpoint ..."
pretrain t5 "${t5[@]}" & running=$!
until compgen -G "$demo/t5/checkpoints/*.json" > /dev/null || ! kill -0 $running 2>/dev/null; do sleep 0.2; done
pkill -9 -P $running 2>/dev/null || true
kill -9 $running 2>/dev/null || true
wait $running 2>/dev/null || true
say "... and resumed by the same command"
pretrain t5 "${t5[@]}"

say "4. a small BERT"
pretrain bert --loop.steps 150 --loop.batch_size 32 --schedule.warmup_steps 30

say "5. what happened"
$python scripts/plot_loss.py "$demo/t5" "$demo/bert" --output "$demo/loss.png"
cat <<EOT

  loss curves          $demo/loss.png
  models               $demo/t5/export and $demo/bert/export (Hugging Face folders; transformers loads them)
  metrics, events      $demo/t5/metrics.jsonl, $demo/t5/tensorboard
  checkpoints          $demo/t5/checkpoints

Next, your own notes: a CSV, JSON-lines or Parquet file with a text column.
  $python -m medjax.train_tokenizer --sources "[{path: notes.csv, text: TEXT, patient: SUBJECT_ID}]" --kind unigram --output my_tokenizer
  $python -m medjax.prepare --sources "[{path: notes.csv, text: TEXT, patient: SUBJECT_ID}]" --tokenizer my_tokenizer --output my_shards
  $python -m medjax.pretrain configs/pretrain/t5_tiny.yaml --data "[{path: my_shards}]" --model.vocab_size 32000 --run_dir runs/mine
EOT
