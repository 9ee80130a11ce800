#!/bin/bash
# an attack of known budget that crashes on every cell is missing from its board: the row looks complete
. /tmp/w/c42/common.sh
mk "$W/d" 4 0
cat > "$W/f.py" <<'P'
from dataclasses import dataclass
from typing import ClassVar
from bench.contracts import Attack, Linf
@dataclass(frozen=True)
class Crash(Attack):
    """Crashes."""
    name: ClassVar[str] = "crash"
    title: ClassVar[str] = "crash"
    access: ClassVar[str] = "gradients"
    @property
    def budget(self): return Linf(0.01)
    def perturb(self, model, images, goal, rng):
        if True: raise RuntimeError("no luck")
        return images.clone()
P
run --dataset "folder:$W/d" --attack fgsm:eps=0.01,crash --defense none --plugin "$W/f.py" --results "$W/r" > "$W/o"; code=$?; grep "^none  \|crash" "$W/o"; echo "exit code $code"
grep "^| *|* none" "$W/r/README.md" | head -1; grep -q "crash" <(sed -n '/^## folder/,/^## Cells/p' "$W/r/README.md" | grep -v "^## Cells")
