"""graphc: a static-graph deep-learning compiler.

Declare a graph in the style of TensorFlow 1.x, extend it with gradients, and ask a Session for
values: the whole fetch runs as one native program.
"""

from __future__ import annotations

from graphc import (
    data,
    debugging,
    eager,
    errors,
    initializers,
    inspect,
    linalg,
    logging,
    losses,
    math,
    nn,
    random,
    train,
)
from graphc.branches import cond, switch_case
from graphc.build import constant, convert_to_tensor
from graphc.cases import case
from graphc.check_ops import (
    assert_equal,
    assert_greater,
    assert_greater_equal,
    assert_less,
    assert_less_equal,
    assert_negative,
    assert_non_negative,
    assert_non_positive,
    assert_none_equal,
    assert_positive,
)
from graphc.check_types import (
    add_check_numerics_ops,
    assert_integer,
    assert_proper_iterable,
    assert_rank,
    assert_rank_at_least,
    assert_rank_in,
    assert_same_float_dtype,
    assert_scalar,
    assert_type,
    check_numerics,
    is_non_decreasing,
    is_numeric_tensor,
    is_strictly_increasing,
    verify_tensor_all_finite,
)
from graphc.config import (
    ConfigProto,
    GPUOptions,
    GraphOptions,
    OptimizerOptions,
    RunMetadata,
    RunOptions,
)
from graphc.control_flow import while_loop
from graphc.custom_gradient import RegisterGradient, custom_gradient, no_gradient
from graphc.custom_gradient import no_gradient as NoGradient
from graphc.custom_gradient import no_gradient as NotDifferentiable
from graphc.defun import function
from graphc.dtypes import (
    DType,
    as_dtype,
    bfloat16,
    double,
    float16,
    float32,
    float64,
    half,
    int8,
    int16,
    int32,
    int64,
    string,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphc.dtypes import (
    bool_ as bool,
)
from graphc.errors import OpError
from graphc.formats import load, load_kernels, save, save_kernels
from graphc.formats.model import Model
from graphc.functional import foldl, foldr, map_fn, scan
from graphc.gradients import AggregationMethod, UnconnectedGradients, gradients
from graphc.graph import (
    Graph,
    GraphKeys,
    Operation,
    Tensor,
    add_to_collection,
    add_to_collections,
    control_dependencies,
    device,
    get_collection,
    get_collection_ref,
    get_default_graph,
    get_default_session,
    name_scope,
    reset_default_graph,
)
from graphc.hessian import hessians
from graphc.initializers import (
    Constant as constant_initializer,
)
from graphc.initializers import (
    GlorotNormal as glorot_normal_initializer,
)
from graphc.initializers import (
    GlorotUniform as glorot_uniform_initializer,
)
from graphc.initializers import (
    Ones as ones_initializer,
)
from graphc.initializers import (
    Orthogonal as orthogonal_initializer,
)
from graphc.initializers import (
    RandomNormal as random_normal_initializer,
)
from graphc.initializers import (
    RandomUniform as random_uniform_initializer,
)
from graphc.initializers import (
    TruncatedNormal as truncated_normal_initializer,
)
from graphc.initializers import (
    UniformUnitScaling as uniform_unit_scaling_initializer,
)
from graphc.initializers import (
    VarianceScaling as variance_scaling_initializer,
)
from graphc.initializers import (
    Zeros as zeros_initializer,
)
from graphc.logging_ops import Assert, Print
from graphc.logging_ops import print_ as print
from graphc.ops.array import (
    group,
    identity,
    no_op,
    placeholder,
    placeholder_with_default,
    stop_gradient,
)
from graphc.ops.array import (
    tuple_ as tuple,
)
from graphc.ops.contraction_einsum import einsum, tensordot
from graphc.ops.contraction_functions import matmul
from graphc.ops.math import (
    abs,
    accumulate_n,
    acos,
    acosh,
    add,
    add_n,
    arg_max,
    arg_min,
    argmax,
    argmin,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    clip_by_value,
    cos,
    cosh,
    count_nonzero,
    div,
    div_no_nan,
    divide,
    equal,
    erf,
    erfc,
    exp,
    expm1,
    floor,
    floor_div,
    floordiv,
    floormod,
    greater,
    greater_equal,
    invert,
    is_finite,
    is_inf,
    is_nan,
    left_shift,
    less,
    less_equal,
    log,
    log1p,
    log_sigmoid,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    multiply_no_nan,
    negative,
    norm,
    not_equal,
    pow,
    realdiv,
    reciprocal,
    reduce_all,
    reduce_any,
    reduce_euclidean_norm,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_std,
    reduce_sum,
    reduce_variance,
    right_shift,
    rint,
    round,
    rsqrt,
    saturate_cast,
    scalar_mul,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    squared_difference,
    subtract,
    tan,
    tanh,
    to_bfloat16,
    to_double,
    to_float,
    to_int32,
    to_int64,
    truediv,
    truncatediv,
    truncatemod,
    xdivy,
    xlogy,
)
from graphc.ops.random import (
    get_seed,
    random_normal,
    random_uniform,
    set_random_seed,
    truncated_normal,
)
from graphc.ops.random_choice import multinomial, random_shuffle
from graphc.ops.reduction_scan import cumprod, cumsum
from graphc.ops.shaping import (
    broadcast_dynamic_shape,
    broadcast_static_shape,
    broadcast_to,
    concat,
    expand_dims,
    gather,
    gather_nd,
    invert_permutation,
    matrix_transpose,
    one_hot,
    pad,
    reshape,
    reverse,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    unstack,
)
from graphc.ops.shaping_make import (
    eye,
    fill,
    linspace,
    meshgrid,
    ones,
    ones_like,
    range,
    rank,
    sequence_mask,
    shape,
    size,
    zeros,
    zeros_like,
)
from graphc.ops.shaping_make import (
    linspace as lin_space,
)
from graphc.ops.shaping_mask import (
    boolean_mask,
    dynamic_partition,
    unique,
    unique_with_counts,
    where,
    where_v2,
)
from graphc.ops.shaping_slice import reverse_sequence, strided_slice
from graphc.ops.shaping_slice import slice_ as slice
from graphc.ops.sorting_functions import argsort, sort
from graphc.options import compile_options
from graphc.own_ops import register_op
from graphc.runtime.native import get_num_threads, set_num_threads
from graphc.script_ops import numpy_function, py_func
from graphc.session import InteractiveSession, Session
from graphc.shapes import Dimension, TensorShape
from graphc.tensor_array import TensorArray
from graphc.train.clip import clip_by_average_norm, clip_by_global_norm, clip_by_norm, global_norm
from graphc.variable_scope import (
    AUTO_REUSE,
    VariableScope,
    get_local_variable,
    get_variable,
    get_variable_scope,
    no_regularizer,
    variable_scope,
)
from graphc.variables import (
    Variable,
    VariableAggregation,
    VariableDef,
    VariableSynchronization,
    all_variables,
    assign,
    assign_add,
    assign_sub,
    global_variables,
    global_variables_initializer,
    initialize_all_variables,
    initialize_local_variables,
    initialize_variables,
    is_variable_initialized,
    local_variables,
    local_variables_initializer,
    model_variables,
    moving_average_variables,
    report_uninitialized_variables,
    trainable_variables,
    variables_initializer,
)

__version__ = "0.1.0"
newaxis = None


__all__ = [
    "AUTO_REUSE", "AggregationMethod", "Assert", "ConfigProto", "DType", "Dimension", "GPUOptions",
    "Graph", "GraphKeys", "GraphOptions", "InteractiveSession", "Model", "NoGradient",
    "NotDifferentiable", "OpError", "Operation", "OptimizerOptions", "Print", "RegisterGradient",
    "RunMetadata", "RunOptions", "Session", "Tensor", "TensorArray", "TensorShape",
    "UnconnectedGradients", "Variable", "VariableAggregation", "VariableDef", "VariableScope",
    "VariableSynchronization", "abs", "accumulate_n", "acos", "acosh", "add",
    "add_check_numerics_ops", "add_n", "add_to_collection", "add_to_collections", "all_variables",
    "arg_max", "arg_min", "argmax", "argmin", "argsort", "as_dtype", "asin", "asinh",
    "assert_equal", "assert_greater", "assert_greater_equal", "assert_integer", "assert_less",
    "assert_less_equal", "assert_negative", "assert_non_negative", "assert_non_positive",
    "assert_none_equal", "assert_positive", "assert_proper_iterable", "assert_rank",
    "assert_rank_at_least", "assert_rank_in", "assert_same_float_dtype", "assert_scalar",
    "assert_type", "assign", "assign_add", "assign_sub", "atan", "atan2", "atanh", "bfloat16",
    "bitwise_and", "bitwise_or", "bitwise_xor", "bool", "boolean_mask", "broadcast_dynamic_shape",
    "broadcast_static_shape", "broadcast_to", "case", "cast", "ceil", "check_numerics",
    "clip_by_average_norm", "clip_by_global_norm", "clip_by_norm", "clip_by_value",
    "compile_options", "concat",
    "cond", "constant", "constant_initializer", "control_dependencies", "convert_to_tensor", "cos",
    "cosh", "count_nonzero", "cumprod", "cumsum", "custom_gradient", "data", "debugging", "device",
    "div", "div_no_nan", "divide", "double", "dynamic_partition", "eager", "einsum", "equal", "erf",
    "erfc", "errors", "exp", "expand_dims", "expm1", "eye", "fill", "float16", "float32", "float64",
    "floor", "floor_div", "floordiv", "floormod", "foldl", "foldr", "function", "gather",
    "gather_nd", "get_collection", "get_collection_ref", "get_default_graph", "get_default_session",
    "get_local_variable", "get_num_threads", "get_seed", "get_variable", "get_variable_scope",
    "global_norm", "global_variables", "global_variables_initializer", "glorot_normal_initializer",
    "glorot_uniform_initializer", "gradients", "greater", "greater_equal", "group", "half",
    "hessians", "identity", "initialize_all_variables", "initialize_local_variables",
    "initialize_variables", "initializers", "inspect", "int8", "int16", "int32", "int64", "invert",
    "invert_permutation", "is_finite", "is_inf", "is_nan", "is_non_decreasing", "is_numeric_tensor",
    "is_strictly_increasing", "is_variable_initialized", "left_shift", "less", "less_equal",
    "lin_space", "linalg", "linspace", "load", "load_kernels", "local_variables",
    "local_variables_initializer",
    "log", "log1p", "log_sigmoid", "logging", "logical_and", "logical_not", "logical_or",
    "logical_xor", "losses", "map_fn", "math", "matmul", "matrix_transpose", "maximum", "meshgrid",
    "minimum", "mod", "model_variables", "moving_average_variables", "multinomial", "multiply",
    "multiply_no_nan", "name_scope", "negative", "newaxis", "nn", "no_gradient", "no_op",
    "no_regularizer", "norm", "not_equal", "numpy_function", "one_hot", "ones", "ones_initializer",
    "ones_like", "orthogonal_initializer", "pad", "placeholder", "placeholder_with_default", "pow",
    "print", "py_func", "random", "random_normal", "random_normal_initializer", "random_shuffle",
    "random_uniform", "random_uniform_initializer", "range", "rank", "realdiv", "reciprocal",
    "reduce_all", "reduce_any", "reduce_euclidean_norm", "reduce_logsumexp", "reduce_max",
    "reduce_mean", "reduce_min", "reduce_prod", "reduce_std", "reduce_sum", "reduce_variance",
    "register_op", "report_uninitialized_variables", "reset_default_graph", "reshape", "reverse",
    "reverse_sequence", "right_shift", "rint", "round", "rsqrt", "saturate_cast", "save",
    "save_kernels",
    "scalar_mul", "scan", "sequence_mask", "set_num_threads", "set_random_seed", "shape", "sigmoid",
    "sign", "sin", "sinh", "size", "slice", "sort", "split", "sqrt", "square", "squared_difference",
    "squeeze", "stack", "stop_gradient", "strided_slice", "string", "subtract", "switch_case",
    "tan", "tanh", "tensordot", "tile", "to_bfloat16", "to_double", "to_float", "to_int32",
    "to_int64", "train", "trainable_variables", "transpose", "truediv", "truncated_normal",
    "truncated_normal_initializer", "truncatediv", "truncatemod", "tuple", "uint8", "uint16",
    "uint32", "uint64", "uniform_unit_scaling_initializer", "unique", "unique_with_counts",
    "unstack", "variable_scope", "variables_initializer", "variance_scaling_initializer",
    "verify_tensor_all_finite", "where", "where_v2", "while_loop", "xdivy", "xlogy", "zeros",
    "zeros_initializer", "zeros_like",
]  # fmt: skip
