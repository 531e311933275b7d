"""What the kernels compute: their specification, in numpy, for the tests.

A function here has the name, the parameters and the results of a kernel. It is written
from the formula, in float64, and may be as slow as it likes. Kernels sum in float32, so
the two agree to rounding; where results are integers, they agree.

Rows are CSR arrays without duplicates: row i has the values ``data[indptr[i]:indptr[i + 1]]``
(float32) at the columns ``indices[indptr[i]:indptr[i + 1]]`` (int32); indptr is int64.
"""

from .ascent import ascend_dual
from .clusters import kmeans_clusters
from .cuts import kmeans_split
from .embedding import train_rows
from .flat import train_flat_rows
from .forests import add_log_proba, average_top_k
from .nodes import NodeTrainer
from .packing import choose_tags, pack_weights, unpack_node
from .pairs import window_pairs
from .paths import all_log_proba, path_log_proba, sample_classes, top_k
from .priors import write_guess
from .ranks import rank_features
from .rescoring import rescore, similarities
from .rows import are_plain, count_columns, hash_rows, keep_large, sum_rows, sum_values, unit_rows
from .sampling import draw_classes
from .scan import best_of_scores, log_totals, score_classes, search_cells
from .trees import contract_binary, huffman_parents
from .trials import TrialTrainer

__all__ = [
    "NodeTrainer",
    "TrialTrainer",
    "add_log_proba",
    "all_log_proba",
    "are_plain",
    "ascend_dual",
    "average_top_k",
    "best_of_scores",
    "choose_tags",
    "contract_binary",
    "count_columns",
    "draw_classes",
    "hash_rows",
    "huffman_parents",
    "keep_large",
    "kmeans_clusters",
    "kmeans_split",
    "log_totals",
    "pack_weights",
    "path_log_proba",
    "rank_features",
    "rescore",
    "sample_classes",
    "score_classes",
    "search_cells",
    "similarities",
    "sum_rows",
    "sum_values",
    "top_k",
    "train_flat_rows",
    "train_rows",
    "unit_rows",
    "unpack_node",
    "window_pairs",
    "write_guess",
]
