# shared by the cases: a scratch folder, tiny images, a tiny classifier, a quick run in this process
set -u
BENCH="${BENCH:-bench}"; PY="${PY:-python3}"
W=/tmp/w/c42/x
export OMP_NUM_THREADS=1 BENCH_CACHE="$W/cache" PYTHONPATH="$W" COLUMNS=200
cat > "$W/mk.py" <<'P'
import sys, numpy as np
from pathlib import Path
from PIL import Image
def make(root, classes=("a", "b", "c"), n=6, side=16, seed=0):
    rng = np.random.default_rng(seed)
    for k, c in enumerate(classes):
        (Path(root) / c).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            p = rng.integers(0, 60, (side, side, 3)); p[..., k % 3] += 120
            Image.fromarray(p.astype(np.uint8)).save(Path(root) / c / f"{i:03d}.png")
if __name__ == "__main__":
    make(sys.argv[1], n=int(sys.argv[2]), seed=int(sys.argv[3]))
P
cat > "$W/tiny.py" <<'P'
import torch
from torch import nn
class Tiny(nn.Module):
    sign = 1.0
    def __init__(self, k):
        super().__init__(); self.lin = nn.Linear(3, k, bias=False)
        with torch.no_grad(): self.lin.weight.copy_(torch.eye(k, 3) * 10)
    def forward(self, x): return self.sign * self.lin(x.mean((2, 3)))
def make(num_classes=3): return Tiny(num_classes)
P
run() { "$BENCH" run --model python:tiny:make --images all --effort quick --workers 0 --tier oblivious "$@" 2>&1; }
column() { "$BENCH" export --results "$1" > "$W/t.csv"; "$PY" -c "import csv
for r in csv.DictReader(open('$W/t.csv', encoding='utf-8')): print(r['$2'])"; }
mk() { "$PY" "$W/mk.py" "$@"; }
