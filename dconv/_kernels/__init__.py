"""The compiled loops: nogil, no checks, no allocation. Callers above have validated, padded and allocated.

    functional.conv ------> _conv.conv_rows ----------\\
    predictors ----> _network.network_rows, _trees -----+--> _dispatch.levels[level] --> microkernel.c, once per
    features, transformers -> _cascade (feature rows) --+      CPU level (plain, baseline, avx2, avx512)
    crf ------> _lattice, _mean_field (crf rows) -------+
    rocket ---> _rocket (rocket rows) ------------------+
    backbone -> _winograd (winograd rows) --------------/

``_dispatch`` owns the table of innermost loops, one entry per CPU level, and chooses one at import. The Cython files
hold the outer loops, and the threads: each output row is written by one thread, so nothing is shared and no result
depends on their number.
"""
