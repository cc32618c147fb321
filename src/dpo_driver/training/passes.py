"""One forward and backward pass of the engine over a forest, written with sizes in place of numbers (training/tape.py).

It follows what training/logprobs.py and training/attention/{sdpa,last_layer}.py do with a transformers model of the
Llama kind, with or without PEFT's LoRA layers, autocast, quantised weights and gradient checkpointing, in the same
order and with the same lifetimes. Called by training/planner.py. Must not import torch or transformers; tests compare
it with what torch allocates.

Names: T flat tokens, U predicting tokens, L slots of padded rows, P and S as in training/tree.py, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpo_driver.training.shapes import Linear, ModelShape
from dpo_driver.training.tape import Storage, Tape, Value, Weight

FLOAT, HALF = 4, 2  # bytes of a number
GENERATOR = 5056  # state of torch's random generator, which every checkpoint keeps
HEAD_ROWS, HEAD_BYTES = 1024, 256 * 2**20  # of logits that exist at once, in float32


def head_chunk(vocabulary: int) -> int:
    """Positions whose logits exist at once: 1,024, and fewer where the vocabulary is large (441 of Qwen3's)."""
    return max(1, min(HEAD_ROWS, HEAD_BYTES // (FLOAT * vocabulary)))


@dataclass(frozen=True)
class Layout:
    """A forest of equal trees: a prompt each, and completions that branch from its end. In tokens."""

    trees: int
    prompt: int
    completions: int  # of each prompt
    completion: int

    @property
    def branch(self) -> int:
        """S: completion tokens of a tree."""
        return self.completions * self.completion

    @property
    def tokens(self) -> int:
        """T."""
        return self.trees * (self.prompt + self.branch)

    @property
    def scored(self) -> int:
        """N."""
        return self.trees * self.branch

    @property
    def predictors(self) -> int:
        """U: the ends of the prompts, and of the completions all but the end."""
        return self.trees * (1 + self.branch - self.completions)


@dataclass(frozen=True)
class Numerics:
    """In which numbers a model is kept and computed, and which of its weights learn."""

    weights: int = FLOAT  # bytes of a weight of the base model
    quantized: bool = False  # the layers' linear weights are in 4 bits; ``weights`` is then that of all others
    autocast: bool = False  # linear layers compute in bfloat16
    adapted: frozenset[str] = frozenset()  # linear layers with an adapter; empty: the whole model learns
    rank: int = 0
    dropout: bool = False
    on_cpu: bool = True
    checkpointing: bool = False

    @property
    def adapter(self) -> bool:
        return bool(self.adapted)


Angles = tuple[Value, Value]  # cosine and sine of every token's position


class Pass:
    """The weights of a model on a tape, and passes over it."""

    def __init__(self, shape: ModelShape, numerics: Numerics) -> None:
        self.shape, self.numerics = shape, numerics
        self.tape = Tape(on_cpu=numerics.on_cpu)
        self._full = not numerics.adapter
        self._root: Value | None = None
        self._nothing, self._learner = Weight(self.tape, 0, 0, False), Weight(self.tape, 0, 0, True)
        self._embedding = self._weight(shape.embedding)
        self._head = self._embedding if shape.tie_word_embeddings else self._weight(shape.embedding)
        self._norm = self._weight(shape.hidden_size)
        self._layers = [self._layer_weights() for _ in range(shape.num_hidden_layers)]

    def _weight(self, numbers: int) -> Weight:
        return Weight(self.tape, numbers, self.numerics.weights, self._full)

    def _layer_weights(self) -> dict[str, Weight]:
        shape, found = self.shape, {}
        for linear in shape.linears:
            found[linear.name] = self._weight(linear.weights)
            if linear.bias:
                found[linear.name + ".bias"] = self._weight(linear.outputs)
            if linear.name in self.numerics.adapted:  # PEFT keeps adapters in float32
                found[linear.name + ".A"] = Weight(self.tape, linear.inputs * self.numerics.rank, FLOAT, True)
                found[linear.name + ".B"] = Weight(self.tape, linear.outputs * self.numerics.rank, FLOAT, True)
        for name in ("input_norm", "post_norm"):
            found[name] = self._weight(shape.hidden_size)
        for name in ("q_norm", "k_norm") if shape.qk_norm else ():
            found[name] = self._weight(shape.head_dim)
        return found

    def run(self, layout: Layout) -> None:
        """Forward and backward over one forest. Gradients stay in ``tape.grads``."""
        self.forward(layout)
        self.backward()

    def forward(self, layout: Layout) -> tuple[int, int]:
        """Forward over one forest.

        Returns:
            Bytes that it keeps for the backward pass, and bytes that it allocated and let go of.
        """
        live, volume = self.tape.live, self.tape.volume
        self._root = self._forward(layout)
        kept = self.tape.live - live
        return kept, self.tape.volume - volume - kept

    def backward(self) -> None:
        """Back over the forest that :meth:`forward` went over."""
        root, self._root = self._root, None
        assert root is not None, "forward comes first"
        self.tape.backward(root)

    # --- the model ---

    def _forward(self, layout: Layout) -> Value:
        tape, width = self.tape, self.shape.hidden_size
        hidden = self._base(layout)
        rows = self._picked(tape.view(hidden, hidden.count), layout.scored * width)
        chunk = head_chunk(self.shape.vocab_size)
        if layout.scored <= chunk:
            return self._score(rows)
        parts = [
            self._checkpoint(self._score, tape.view(rows, min(chunk, layout.scored - start) * width))
            for start in range(0, layout.scored, chunk)
        ]
        return tape.cat(parts)

    def _score(self, rows: Value) -> Value:
        """Hidden states to log-probs: log-softmax is kept, the entropy beside it has no gradient."""
        tape, head = self.tape, Linear("head", self.shape.hidden_size, self.shape.vocab_size)
        scored = rows.count // head.inputs
        logits = tape.cast(self._product(rows, head.inputs, head.outputs, self._head), FLOAT)
        soft = tape.new(logits.count, FLOAT)
        size = logits.count

        def backward(grad: Value, kept: Storage = soft.storage) -> list[Value]:
            return [tape.new(size, FLOAT)]

        tape.record(soft, [logits], backward)
        out = tape.record(tape.new(scored, FLOAT), [soft], lambda grad: [tape.new(size, FLOAT)])
        del soft, backward
        if tape.again:  # torch stops as soon as it has again what it needs
            return out
        with tape.no_grad():
            weighted = tape.new(size, FLOAT)
            impossible = Storage(tape, size)
            filled = tape.new(size, FLOAT)
        del weighted, impossible, filled
        return out

    def _base(self, layout: Layout) -> Value:
        tape, shape, table = self.tape, self.shape, self._embedding
        embedded = tape.new(layout.tokens * shape.hidden_size, table.width)
        tape.record(embedded, [table], lambda grad: [tape.new(table.count, grad.width)])
        angles = layout.tokens * shape.head_dim
        cos, sin = tape.new(angles, embedded.width), tape.new(angles, embedded.width)
        run = self._checkpoint if self.numerics.checkpointing else lambda layer, *inputs: layer(*inputs)
        hidden = embedded  # transformers' forward holds on to the embeddings until it returns
        for weights in self._layers[:-1]:

            def layer(x: Value, weights: dict[str, Weight] = weights) -> Value:
                return self._layer(x, weights, lambda x: self._attention(x, weights, layout, (cos, sin)))

            hidden = run(layer, hidden)
        few = layout.predictors
        fewer = tape.new(few * shape.head_dim, cos.width), tape.new(few * shape.head_dim, sin.width)

        def last(x: Value, whole: Value) -> Value:
            weights, angles = self._layers[-1], (cos, sin)
            return self._layer(x, weights, lambda x: self._last_attention(x, whole, weights, layout, fewer, angles))

        hidden = run(last, self._picked(hidden, few * shape.hidden_size), hidden)
        return self._rms_norm(hidden, self._norm, shape.hidden_size)

    def _picked(self, x: Value, numbers: int) -> Value:
        """Rows picked by index, some of them; the others' gradient is zero."""
        tape, of_x = self.tape, (x.count, x.width)
        return tape.record(tape.new(numbers, x.width), [x], lambda grad: [tape.new(*of_x)])

    def _checkpoint(self, function: Callable[..., Value], *inputs: Value) -> Value:
        """Keep the inputs alone, and compute the rest again when the backward pass comes by."""
        tape = self.tape
        if not tape.recording:
            return function(*inputs)
        with tape.no_grad():
            out = function(*inputs)
        leaves = [Weight(tape, 0, 0, x.node is not None) for x in inputs]
        sizes = [(x.count, x.width) for x in inputs]

        saved = ([x.storage for x in inputs], Storage(tape, GENERATOR))

        def backward(grad: Value, kept: tuple[list[Storage], Storage] = saved) -> list[Value | None]:
            tape.again = True
            again = zip(sizes, kept[0], leaves, strict=True)
            root = function(*(Value(*size, storage, leaf.node) for size, storage, leaf in again))
            tape.again = False
            tape.backward(root, grad)
            return [*(None if leaf.node is None else tape.grads.pop(leaf.node) for leaf in leaves), None]

        return tape.record(out, [*inputs, self._learner], backward)

    def _layer(self, hidden: Value, weights: dict[str, Weight], attention: Callable[[Value], Value]) -> Value:
        residual = hidden
        hidden = self._rms_norm(hidden, weights["input_norm"], self.shape.hidden_size)
        hidden = attention(hidden)
        hidden = self.tape.add(residual, hidden)
        residual = hidden
        hidden = self._rms_norm(hidden, weights["post_norm"], self.shape.hidden_size)
        hidden = self._mlp(hidden, weights)
        return self.tape.add(residual, hidden)

    def _rms_norm(self, x: Value, weight: Weight, size: int) -> Value:
        tape, width = self.tape, x.width
        hidden = tape.cast(x, FLOAT)
        variance = tape.mean(tape.square(hidden), x.count // size)
        hidden = tape.mul(hidden, tape.smooth(variance, "output"))
        return tape.mul(tape.cast(hidden, width), weight)

    def _mlp(self, x: Value, weights: dict[str, Weight]) -> Value:
        tape = self.tape
        gated = tape.smooth(self._linear(x, "gate_proj", weights), "input")
        return self._linear(tape.mul(gated, self._linear(x, "up_proj", weights)), "down_proj", weights)

    def _attention(self, x: Value, weights: dict[str, Weight], layout: Layout, angles: Angles) -> Value:
        query, key = self._heads(x, "q", weights), self._heads(x, "k", weights)
        value = self._linear(x, "v_proj", weights)
        query, key = self._rotated(query, angles), self._rotated(key, angles)
        return self._attended(self._two_parts, query, key, value, weights, layout)

    def _last_attention(
        self, x: Value, whole: Value, weights: dict[str, Weight], layout: Layout, fewer: Angles, angles: Angles
    ) -> Value:
        """Of the predicting tokens; what the layer itself computes of their keys and values is not counted."""
        whole = self._rms_norm(whole, weights["input_norm"], self.shape.hidden_size)
        key = self._heads(whole, "k", weights)
        value = self._linear(whole, "v_proj", weights)
        key = self._rotated(key, angles)
        query = self._rotated(self._heads(x, "q", weights), fewer)
        return self._attended(self._of_predictors, query, key, value, weights, layout)

    def _heads(self, x: Value, which: str, weights: dict[str, Weight]) -> Value:
        x = self._linear(x, f"{which}_proj", weights)
        return self._rms_norm(x, weights[f"{which}_norm"], self.shape.head_dim) if self.shape.qk_norm else x

    def _attended(
        self, parts: Callable[[Value, Value, Value, Layout], Value], query: Value, key: Value, value: Value,
        weights: dict[str, Weight], layout: Layout,
    ) -> Value:  # fmt: skip
        width = query.width
        kernel = FLOAT if self.numerics.on_cpu else HALF if self.numerics.autocast else width
        cast = self.tape.cast
        out = parts(cast(query, kernel), cast(key, kernel), cast(value, kernel), layout)
        return self._linear(cast(out, width), "o_proj", weights)

    def _rotated(self, x: Value, angles: Angles) -> Value:
        tape, half = self.tape, x.count // 2
        turned = tape.cat([tape.scale(tape.view(x, half)), tape.view(x, half)])
        return tape.add(tape.mul(x, angles[0]), tape.mul(turned, angles[1]))

    def _two_parts(self, query: Value, key: Value, value: Value, layout: Layout) -> Value:
        tape, shape = self.tape, self.shape
        groups = shape.num_attention_heads // shape.num_key_value_heads
        prompt_q, branch_q = self._rows(query, layout, 1)
        prompt_k, branch_k = self._rows(key, layout, groups)
        prompt_v, branch_v = self._rows(value, layout, groups)
        parts = [tape.view(self._kernel(prompt_q, prompt_k, prompt_v, 0))]
        mask = layout.trees * layout.branch * (layout.prompt + layout.branch)
        second = self._kernel(branch_q, tape.cat([prompt_k, branch_k]), tape.cat([prompt_v, branch_v]), mask)
        parts.append(tape.view(second))
        del second
        return tape.gather(tape.cat(parts), query.count)

    def _of_predictors(self, query: Value, key: Value, value: Value, layout: Layout) -> Value:
        tape, shape = self.tape, self.shape
        groups = shape.num_attention_heads // shape.num_key_value_heads
        query = tape.gather(query, query.count)  # equal trees: no padding
        keys, values = tape.cat(self._rows(key, layout, groups)), tape.cat(self._rows(value, layout, groups))
        mask = layout.predictors * (layout.prompt + layout.branch)
        return tape.gather(self._kernel(query, keys, values, mask), query.count)

    def _rows(self, x: Value, layout: Layout, groups: int) -> tuple[Value, Value]:
        numbers = self.shape.num_attention_heads * self.shape.head_dim * layout.trees
        slots = self.tape.gather(self.tape.repeat(x, groups), numbers * (layout.prompt + layout.branch))
        return self.tape.view(slots, numbers * layout.prompt), self.tape.view(slots, numbers * layout.branch)

    def _kernel(self, query: Value, key: Value, value: Value, mask: int) -> Value:
        """Fused attention keeps its inputs, its output, the row sums, and a boolean mask as numbers."""
        tape, out = self.tape, self.tape.new(query.count, query.width)
        kept = [query.storage, key.storage, value.storage, out.storage]
        kept += [Storage(tape, query.count // self.shape.head_dim * FLOAT), Storage(tape, mask * query.width)]
        of_query, of_key = (query.count, query.width), (key.count, key.width)
        workspace = 0 if self.numerics.on_cpu else query.count * FLOAT  # the kernels on GPUs sum up dQ in float32

        def backward(grad: Value, kept: list[Storage] = kept) -> list[Value]:
            scratch = Storage(tape, workspace)
            found = [tape.new(*of_query), tape.new(*of_key), tape.new(*of_key)]
            del scratch
            return found

        return tape.record(out, [query, key, value], backward)

    # --- linear layers ---

    def _linear(self, x: Value, name: str, weights: dict[str, Weight]) -> Value:
        tape, linear = self.tape, next(linear for linear in self.shape.linears if linear.name == name)
        out = self._base_linear(x, linear, weights)
        if name not in self.numerics.adapted:
            return out
        width, numerics = out.width, self.numerics
        if numerics.quantized:  # PEFT's layer over bitsandbytes' copies first
            out = tape.record(tape.new(out.count, out.width), [out], lambda grad: [grad])
        if not (numerics.quantized and numerics.autocast and not numerics.on_cpu):  # ... and leaves this to autocast
            x = tape.cast(x, FLOAT)
        if numerics.dropout:
            x = tape.dropout(x)
        low = self._product(x, linear.inputs, numerics.rank, weights[name + ".A"])
        change = tape.scale(self._product(low, numerics.rank, linear.outputs, weights[name + ".B"]))
        return tape.cast(tape.add(out, change), width)

    def _base_linear(self, x: Value, linear: Linear, weights: dict[str, Weight]) -> Value:
        if not self.numerics.quantized:
            bias = weights.get(linear.name + ".bias")
            return self._product(x, linear.inputs, linear.outputs, weights[linear.name], bias)
        tape, width, of_x = self.tape, x.width, x.count
        x = tape.cast(x, HALF)
        unpacked = Storage(tape, linear.weights * HALF)  # the whole matrix in bfloat16, in both directions
        out = tape.new(of_x // linear.inputs * linear.outputs, HALF)
        del unpacked

        def backward(grad: Value) -> list[Value]:
            unpacked = Storage(tape, linear.weights * HALF)
            found = [tape.new(of_x, HALF)]
            del unpacked
            return found

        return tape.cast(tape.record(out, [x], backward), width)

    def _product(self, x: Value, inputs: int, outputs: int, weight: Weight, bias: Weight | None = None) -> Value:
        """``x @ weight.T + bias``; under autocast in bfloat16, with a copy of a weight that is wider."""
        tape = self.tape
        if self.numerics.autocast:
            x = tape.cast(x, HALF)
        copied = Storage(tape, weight.count * HALF) if self.numerics.autocast and weight.width > HALF else None
        out = tape.new(x.count // inputs * outputs, x.width)
        of_x = (x.count, x.width) if x.node is not None else None
        learns = [None if w is None or w.node is None else (w.count, w.width) for w in (weight, bias)]
        kept_x = x.storage if learns[0] else None

        def backward(grad: Value, kept: tuple[Storage | None, ...] = (kept_x, copied)) -> list[Value | None]:
            grad_x = None if of_x is None else tape.new(*of_x)
            grads = [None if w is None else tape.cast(tape.new(w[0], grad.width), w[1]) for w in learns]
            return [grad_x, *grads]

        return tape.record(out, [x, weight, bias or self._nothing], backward)
