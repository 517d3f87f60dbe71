"""The settings that TensorFlow scripts give to sessions and runs: taken and kept, nothing more.

There is one way to run a program here, and the number of threads is ``set_num_threads``; what a
script says about devices and placement has no effect. The level of tracing has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from graphc.errors import DTypeError, GraphError


@dataclass(slots=True)
class GPUOptions:
    """What a script says of the memory of devices."""

    per_process_gpu_memory_fraction: float = 0.0
    allow_growth: bool = False
    allocator_type: str = ""
    deferred_deletion_bytes: int = 0
    visible_device_list: str = ""
    polling_active_delay_usecs: int = 0
    polling_inactive_delay_msecs: int = 0
    force_gpu_compatible: bool = False
    experimental: Any = None


@dataclass(slots=True)
class OptimizerOptions:
    """What a script says of graph optimisation; ours is always on."""

    L1: ClassVar[int] = 0
    L0: ClassVar[int] = -1
    DEFAULT: ClassVar[int] = 0
    OFF: ClassVar[int] = -1
    ON_1: ClassVar[int] = 1
    ON_2: ClassVar[int] = 2

    do_common_subexpression_elimination: bool = False
    do_constant_folding: bool = False
    max_folded_constant_in_bytes: int = 0
    do_function_inlining: bool = False
    opt_level: int = 0
    global_jit_level: int = 0


@dataclass(slots=True)
class GraphOptions:
    """What a script says of the graph."""

    enable_recv_scheduling: bool = False
    optimizer_options: OptimizerOptions = field(default_factory=OptimizerOptions)
    build_cost_model: int = 0
    build_cost_model_after: int = 0
    infer_shapes: bool = False
    place_pruned_graph: bool = False
    enable_bfloat16_sendrecv: bool = False
    timeline_step: int = 0
    rewrite_options: Any = None


@dataclass(slots=True)
class ConfigProto:
    """The ``config`` of a session."""

    device_count: dict[str, int] = field(default_factory=dict)
    intra_op_parallelism_threads: int = 0
    inter_op_parallelism_threads: int = 0
    use_per_session_threads: bool = False
    session_inter_op_thread_pool: list[Any] = field(default_factory=list)
    placement_period: int = 0
    device_filters: list[str] = field(default_factory=list)
    gpu_options: GPUOptions = field(default_factory=GPUOptions)
    allow_soft_placement: bool = False
    log_device_placement: bool = False
    graph_options: GraphOptions = field(default_factory=GraphOptions)
    operation_timeout_in_ms: int = 0
    rpc_options: Any = None
    cluster_def: Any = None
    isolate_session_state: bool = False
    share_cluster_devices_in_session: bool = False
    experimental: Any = None


@dataclass(slots=True)
class RunOptions:
    """The ``options`` of a run.

    ``trace=True`` is short for ``trace_level=RunOptions.FULL_TRACE``; every level but ``NO_TRACE``
    times all kernels.  ``fetch_on_device=True`` leaves the fetches on the device of the session, as
    arrays of CuPy's.
    """

    NO_TRACE: ClassVar[int] = 0
    SOFTWARE_TRACE: ClassVar[int] = 1
    HARDWARE_TRACE: ClassVar[int] = 2
    FULL_TRACE: ClassVar[int] = 3

    trace_level: int = 0
    timeout_in_ms: int = 0
    inter_op_thread_pool: int = 0
    output_partition_graphs: bool = False
    debug_options: Any = None
    report_tensor_allocations_upon_oom: bool = False
    experimental: Any = None
    trace: bool = False
    fetch_on_device: bool = False

    def __post_init__(self) -> None:
        if self.trace and not self.trace_level:
            self.trace_level = self.FULL_TRACE


@dataclass(slots=True)
class RunMetadata:
    """What a traced run tells of itself.

    ``profile`` is a :class:`~graphc.runtime.profile.Profile`, which ``step_stats`` is too.
    """

    step_stats: Any = None
    cost_graph: Any = None
    partition_graphs: list[Any] = field(default_factory=list)
    function_graphs: list[Any] = field(default_factory=list)
    profile: Any = None


def traces(options: Any, metadata: Any) -> bool:
    """Whether these options of a run ask for a trace.

    Raises:
      DTypeError: (a TypeError) they are no RunOptions, or there is other metadata than RunMetadata.
      GraphError: (a ValueError) there is no such level.
    """
    if not isinstance(options, RunOptions):
        raise DTypeError(f"options must be RunOptions, not {type(options).__name__}")
    if metadata is not None and not isinstance(metadata, RunMetadata):
        raise DTypeError(f"run_metadata must be RunMetadata, not {type(metadata).__name__}")
    level = options.trace_level
    if level not in range(RunOptions.FULL_TRACE + 1):
        raise GraphError(
            f"trace_level must be NO_TRACE (0), SOFTWARE_TRACE (1), HARDWARE_TRACE (2) or "
            f"FULL_TRACE (3), not {level!r}"
        )
    return level != RunOptions.NO_TRACE
