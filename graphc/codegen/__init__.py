"""Code generation: loop kernels to text. It knows of nothing but the loop IR."""
