#!/usr/bin/env bash
# The trials of README.md's "Open sets", from the corpora as they are published to the scores. What is
# there is not made again, and every run goes on where it was stopped: hours of two CPU cores in all.
#   bash scripts/open_sets.sh CORPORA FOLDER [STAGE ...]     stages: data models encoders curve decoders; default: all
#   GENERAL=FILE.gz   general text (JSON lines), which the stage decoders needs: what its model reads first
#   MINILM=FOLDER     all-MiniLM-L6-v2 (a Hugging Face folder), which joins the encoders
# CORPORA holds mtsamples/ e3c/ medquad/ hoc/ rqe/ pubmedqa/ ner_mtl/ chemprot/ covid_qa/ mts_dialog/ casimedicos/.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 2 ] || { sed -n '2,8s/^# //p' "$0" >&2; exit 2; }
[ -d "$1" ] || { echo "open_sets.sh: $1 is no folder" >&2; exit 2; }
corpora=$(cd "$1" && pwd); minilm=${MINILM:+$(cd "$MINILM" && pwd)}; general=${GENERAL:+$(realpath "$GENERAL")}
folder=$2; shift 2
stages=("$@"); [ $# -gt 0 ] || stages=(data models encoders curve decoders)
for stage in "${stages[@]}"; do
  case $stage in data|models|encoders|curve) ;;
    decoders) [ -f "$general" ] || { echo "open_sets.sh: decoders need GENERAL=FILE.gz" >&2; exit 2; };;
    *) echo "open_sets.sh: no stage $stage" >&2; exit 2;; esac
done
mkdir -p "$folder"; cd "$folder"
bash "$root/scripts/setup.sh"
python=$root/.venv/bin/python
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/compiled}
gib16=$((2**34))  # glibc keeps what a step computes with for the next step, in large pages
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=$gib16:glibc.malloc.trim_threshold=$gib16}
mkdir -p models runs logs open

made() { # file that shows it, name, command...
  local shown=$1 name=$2; shift 2
  [ -e "$shown" ] && return
  printf '%(%T)T  %s\n' -1 "$name"
  "$@" > "logs/${name//\//-}.log" 2>&1 || { echo "open_sets.sh: $name failed, see $PWD/logs/${name//\//-}.log" >&2; exit 1; }
}

task() { made "open/$1_$2.jsonl" "data/$1" "$python" "$root/scripts/open_tasks.py" "$1" "$corpora/$3" open; }

data() {
  task hoc all hoc/hoc.tar.gz
  task rqe test rqe
  task pubmedqa test pubmedqa
  task mtsamples all mtsamples/mtsamples.csv.gz
  task ner_mtl bc5cdr_test ner_mtl
  made open/e3c_en.jsonl data/e3c "$python" "$root/scripts/open_notes.py" e3c "$corpora/e3c/e3c_english_ccby_docs.tar.gz" open/e3c_en.jsonl --layer 3
  made open/medquad.jsonl data/medquad "$python" "$root/scripts/open_notes.py" medquad "$corpora/medquad/medquad_1-9.tar.gz" open/medquad.jsonl
  for name in ner_mtl covid_qa mts_dialog mtsamples/mtsamples.csv.gz; do
    [ -e "open/${name##*/}" ] || ln -s "$corpora/$name" "open/${name##*/}"
  done
  mkdir -p open/chemprot
  for split in train dev test; do [ -e "open/chemprot/$split.jsonl" ] || ln -s "$corpora/chemprot/$split.txt" "open/chemprot/$split.jsonl"; done
  [ -e open/casimedicos-arg ] || tar --no-same-owner -xzf "$corpora/casimedicos/casimedicos-arg.tar.gz" -C open
}

notes="$root/configs/sources/open_notes.yaml"
shards="$root/configs/prepare/open_notes.yaml"

tokenizer() { # name, options...
  local name=$1; shift
  made "tokenizers/$name/training.json" "tokenizer/$name" "$python" -m medjax.train_tokenizer "$@" --vocab_size 8000 --output "tokenizers/$name"
}
prepare() { # name, options...
  local name=$1; shift
  made "prepared/$name/manifest.json" "shards/$name" "$python" -m medjax.prepare "$shards" --output "prepared/$name" "$@"
}
pretrain() { # name, configuration, options...
  local name=$1 config=$2; shift 2
  made "runs/$name/lineage.json" "pretrain/$name" "$python" -m medjax.pretrain "$root/configs/pretrain/$config.yaml" --run_dir "runs/$name" "$@"
  [ -e "models/$name" ] || ln -s "../runs/$name/export" "models/$name"
}
untrained() { # name: the same shape with random weights
  made "models/$1_untrained/lineage.json" "untrained/$1" "$python" "$root/scripts/untrained.py" "models/$1" "models/$1_untrained"
}

models() {
  tokenizer t5 "$notes" --kind unigram
  tokenizer bert "$notes" --kind wordpiece --lowercase true
  prepare t5
  prepare bert --tokenizer tokenizers/bert
  pretrain t5_notes t5_tiny --data '[{path: prepared/t5, domain: clinical}]' --loop.steps 1500
  pretrain modernbert_notes modernbert_tiny --data '[{path: prepared/bert, domain: clinical}]' --loop.steps 1600
  untrained t5_notes
  untrained modernbert_notes
  if [ -n "$minilm" ]; then
    [ -e models/minilm ] || ln -s "$minilm" models/minilm
    untrained minilm
  fi
}

finetune() { # set, model, options...
  local set=$1 model=$2; shift 2
  made "runs/$set-$model/results.json" "finetune/$set-$model" "$python" -m medjax.finetune "$root/configs/finetune/open/$set.yaml" \
    --init_from "models/$model" --run_dir "runs/$set-$model" "$@"
}

encoders() { # what took long has fewer seeds or epochs, as README.md says
  local set
  for model in modernbert_notes modernbert_notes_untrained; do
    for set in ncbi_disease bc5cdr chemprot; do finetune $set $model; done
    for set in casimedicos_it mts_dialog_sections rqe pubmedqa hoc covid_qa; do finetune $set $model --seeds '[1]'; done
    finetune mtsamples $model --seeds '[1]' --training.epochs 4
  done
  for model in t5_notes t5_notes_untrained; do finetune mts_dialog $model --seeds '[1]'; done
  [ -e models/minilm ] || { echo "open_sets.sh: without MINILM, no MiniLM"; return; }
  for model in minilm minilm_untrained; do
    for set in ncbi_disease bc5cdr casimedicos_it chemprot rqe; do finetune $set $model --seeds '[1]' --training.epochs 2; done
    for set in covid_qa mtsamples; do finetune $set $model --seeds '[1]' --training.epochs 1; done
    finetune pubmedqa $model --seeds '[1]' --training.epochs 4
    for set in hoc mts_dialog_sections; do finetune $set $model --seeds '[1]'; done
  done
}

curve() {
  made runs/curve-modernbert_notes/results.json finetune/curve-modernbert_notes "$python" -m medjax.finetune "$root/configs/finetune/open/ncbi_disease.yaml" \
    --init_from models/modernbert_notes --run_dir runs/curve-modernbert_notes --label_fractions '[0.01, 0.05, 0.1, 0.25, 0.5, 1.0]' --training.min_steps 400
}

ask() { # name of the way it is asked, set, model, options...
  local name=$1 set=$2 model=$3; shift 3
  made "runs/asked/$set-$name/results.json" "prompt/$set-$name" "$python" -m medjax.prompt "$root/configs/prompt/open/$set.yaml" \
    --model "$model" --run_dir "runs/asked/$set-$name" "$@"
}

decoders() { # general text, then the notes; asked, and tuned on all four sets at once
  local model set mode source="[{path: open/general.jsonl.gz, id: id, licence: several (by document), access: open}]"
  [ -e open/general.jsonl.gz ] || ln -s "$general" open/general.jsonl.gz
  tokenizer bpe --sources "$source" --kind bpe
  prepare llama_general --tokenizer tokenizers/bpe --sources "$source"
  prepare llama_notes --tokenizer tokenizers/bpe
  pretrain llama_general llama_tiny --data '[{path: prepared/llama_general, domain: general}]' --loop.steps 1000
  pretrain llama_notes llama_tiny --data '[{path: prepared/llama_notes, domain: clinical}]' --init_from models/llama_general --model null --loop.steps 1000
  for model in llama_notes llama_general; do
    made "runs/tuned-$model/results.json" "finetune/tuned-$model" "$python" -m medjax.finetune "$root/configs/finetune/open/decoder.yaml" \
      --init_from "models/$model" --run_dir "runs/tuned-$model"
  done
  made runs/tuned_json/results.json finetune/tuned_json "$python" -m medjax.finetune "$root/configs/finetune/open/decoder_json.yaml" \
    --init_from models/llama_notes --run_dir runs/tuned_json
  for mode in free constrained; do ask tuned-$mode ncbi_disease_json runs/tuned_json/export --mode $mode; done
  ask llama_notes-4-constrained ncbi_disease_json models/llama_notes --mode constrained --shots.count 4
  for set in ncbi_disease mts_dialog_sections pubmedqa casimedicos_it; do
    for mode in free constrained; do
      for model in llama_notes llama_general; do ask "tuned_$model-$mode" $set "runs/tuned-$model/export" --mode $mode; done
      ask "llama_notes-0-$mode" $set models/llama_notes --mode $mode
      ask "llama_notes-4-$mode" $set models/llama_notes --mode $mode --shots.count 4
    done
    ask tuned_llama_notes-int8 $set runs/tuned-llama_notes/export --mode constrained --int8 true
  done
  for set in mts_dialog_sections pubmedqa; do
    ask llama_notes-likelihood $set models/llama_notes --mode likelihood
    ask tuned_llama_notes-likelihood $set runs/tuned-llama_notes/export --mode likelihood
  done
}

for stage in "${stages[@]}"; do "$stage"; done
