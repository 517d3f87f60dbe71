"""The runtime: native code, its cache, the thread pool and the call from Python."""
