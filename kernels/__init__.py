"""Hand-scheduled kernel templates, imported as ``graphc.kernels``.

What fusion and the scheduler cannot say at machine speed (matrix products, convolutions, pooling,
sort, scatter) is written here as loop IR with a schedule of its own. A template accepts a fused
prologue on its operands and a fused epilogue on its result.

The folder ships inside the package through the symlink ``graphc/kernels``. Never import it by its
top-level name: on a user's machine that is somebody else's package.
"""
