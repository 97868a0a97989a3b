"""Single-precision matrix product by NumPy's OpenBLAS: one product per line on stdin, seconds on stdout.

    python openblas.py ROWS COLUMNS INNER          threads and kernels by OPENBLAS_NUM_THREADS and OPENBLAS_CORETYPE
"""
import json
import sys
import time

import numpy as np

rows, columns, inner = map(int, sys.argv[1:4])
random = np.random.default_rng(0)
x = random.uniform(-1, 1, (rows, inner)).astype(np.float32)
w = random.uniform(-1, 1, (columns, inner)).astype(np.float32)
out = np.empty((rows, columns), np.float32)
np.matmul(x, w.T, out=out)
print(json.dumps({"numpy": np.__version__}), flush=True)
for _ in sys.stdin:
    begin = time.perf_counter()
    np.matmul(x, w.T, out=out)
    print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)
