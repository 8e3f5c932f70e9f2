"""Writes worker/engine/graph/op-definitions.json: the signatures of the TensorFlow operations that TensorFlow.js's Node
backend (and Lockstep itself) calls, from TensorFlow's own registry.

Eager TensorFlow infers an operation's type attributes from its inputs; in a graph they must be written out, and this table
says which input each comes from. Run it again when @tensorflow/tfjs-node or TensorFlow changes:

    python bench/peers/op_definitions.py
"""

import json
import pathlib
import re

import tensorflow  # noqa: F401  (registers the operations)
from tensorflow.python.framework import op_def_registry

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "node_modules/@tensorflow/tfjs-node/dist"
# Operations that Lockstep adds itself.
OWN = """ReluGrad BiasAdd BiasAddGrad SparseSoftmaxCrossEntropyWithLogits SigmoidGrad TanhGrad SeluGrad SoftplusGrad
StatelessRandomUniform StatelessRandomNormal StatelessTruncatedNormal Cast Identity Reshape ConcatV2 BroadcastTo
ImageProjectiveTransformV3 VarHandleOp AssignVariableOp ReadVariableOp FusedBatchNormV3 FusedBatchNormGradV3 Const
Placeholder""".split()


def named_in_backend():
    words = set(OWN)
    for path in KERNELS.rglob("*.js"):
        text = re.sub(r"//# sourceMappingURL=.*", "", path.read_text())
        words.update(re.findall(r"\b[A-Z][A-Za-z0-9]{1,60}\b", text))
    return words


def signature(op):
    """inputs: each `t` (one tensor of the type attribute t), `t*n` (n of them), `[t]` (a list of types), `-` (a fixed type)."""
    inputs = []
    for arg in op.input_arg:
        kind = arg.type_attr or "-"
        if arg.type_list_attr:
            kind = f"[{arg.type_list_attr}]"
        elif arg.number_attr:
            kind = f"{kind}*{arg.number_attr}"
        inputs.append(kind)
    result = {"inputs": inputs}
    required = [a.name for a in op.attr if not a.HasField("default_value")]
    if required:
        result["required"] = required
    if op.is_stateful:
        result["stateful"] = True
    return result


def main():
    found = {name: op_def_registry.get(name) for name in sorted(named_in_backend())}
    ops = {name: op for name, op in found.items() if op is not None}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(signature(op))}" for name, op in ops.items())
    out = ROOT / "worker/engine/graph/op-definitions.json"
    out.write_text("{\n" + lines + "\n}\n")
    print(f"{len(ops)} operations in {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
