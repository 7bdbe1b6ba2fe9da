"""Queue, bank and moving average: against plain Python, staged and committed, saved and restored, on two processes."""

import itertools
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.nn.memory import Bank, Memory, MovingAverage, Queue
from tests.nn.two_memories import remembered


def unit(count: int, dim: int = 3, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def state(memory: Memory) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in memory.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_queue_and_a_bank_begin_with_unit_rows_that_the_seed_decides() -> None:
    before = torch.get_rng_state()
    for a, b, c in (
        (Queue(8, 3, 1).keys, Queue(8, 3, 1).keys, Queue(8, 3, 2).keys),
        (Bank(8, 3, 1).vectors, Bank(8, 3, 1).vectors, Bank(8, 3, 2).vectors),
    ):
        torch.testing.assert_close(a.norm(dim=1), torch.ones(8))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_queue_of_8_wraps_after_two_batches_of_4() -> None:
    queue = Queue(8, 3, seed=0)
    batches = [unit(4, seed=i) for i in range(3)]
    cursors, filled = [], []
    for batch in batches:
        cursors.append(int(queue.cursor))
        filled.append(queue.filled())
        queue.stage(batch)
        queue.commit()
    assert (cursors, int(queue.cursor)) == ([0, 4, 0], 4)
    assert (filled, queue.filled()) == ([0, 4, 8], 8)
    assert torch.equal(queue.keys, torch.cat([batches[2], batches[1]]))
    assert queue.cursor.dtype == torch.int64


def test_a_queue_whose_size_the_batch_does_not_divide_is_pythons_ring() -> None:
    queue = Queue(7, 3, seed=0)
    rows, at = queue.keys.tolist(), 0
    for i, size in enumerate([3, 3, 3, 7, 1, 5]):
        batch = unit(size, seed=i)
        queue.stage(batch)
        queue.commit()
        for row in batch.tolist():
            rows[at % 7] = row
            at += 1
        assert queue.keys.tolist() == rows


def test_what_several_views_stage_goes_in_one_after_the_other_and_once() -> None:
    queue = Queue(8, 3, seed=0)
    old = queue.keys.clone()
    first, second = unit(2, seed=1), unit(3, seed=2)
    queue.stage(first)
    queue.stage(second)
    queue.commit()
    assert torch.equal(queue.keys, torch.cat([first, second, old[5:]]))
    queue.commit()  # nothing staged
    assert queue.filled() == 5


def test_more_keys_in_a_step_than_the_queue_holds_are_refused_before_anything_is_lost() -> None:
    queue = Queue(4, 3, seed=0)
    queue.stage(unit(3))
    with pytest.raises(ConfigError, match=r"a queue of 4 keys is given 5 in one step.*use a queue of 5 or more"):
        queue.stage(unit(2))
    with pytest.raises(ConfigError, match="at least 1 key, got 0"):
        Queue(0, 3, seed=0)
    with pytest.raises(ConfigError, match="at least 1 image, got 0"):
        Bank(0, 3, seed=0)


def test_the_live_queue_serves_a_backward_and_a_commit_before_it_is_an_error_not_a_wrong_gradient() -> None:
    queue, q = Queue(4, 3, seed=0), unit(2).requires_grad_()
    old = queue.keys.clone()
    queue.stage(q * 2)
    (q @ queue.keys.T).sum().backward()
    queue.commit()
    torch.testing.assert_close(q.grad, old.sum(0).expand(2, 3))
    assert not queue.keys.requires_grad
    late = (q @ queue.keys.T).sum()
    queue.stage(q)
    queue.commit()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        late.backward()


def test_a_banks_rows_are_mixed_normalised_and_the_untouched_stay_to_the_bit() -> None:
    bank = Bank(10, 3, seed=0, momentum=0.25)
    old, index, new = bank.vectors.clone(), torch.tensor([7, 0, 3]), unit(3, seed=5)
    bank.stage(index, new)
    bank.commit()
    for place, row in zip([7, 0, 3], new):
        mixed = 0.25 * old[place] + 0.75 * row
        torch.testing.assert_close(bank.vectors[place], mixed / mixed.norm())
        assert float(bank.vectors[place].norm()) == pytest.approx(1, abs=1e-6)
    untouched = [1, 2, 4, 5, 6, 8, 9]
    assert torch.equal(bank.vectors[untouched], old[untouched])


def test_an_image_that_is_staged_twice_counts_once_as_it_was_staged_last() -> None:
    new = unit(6, seed=3)
    twice, once = Bank(4, 3, seed=0), Bank(4, 3, seed=0)
    twice.stage(torch.tensor([2, 1, 2]), new[:3])
    twice.stage(torch.tensor([1, 1, 0]), new[3:])
    twice.commit()
    once.stage(torch.tensor([2, 1, 0]), new[[2, 4, 5]])
    once.commit()
    assert torch.equal(twice.vectors, once.vectors)


def test_rows_of_a_bank_come_in_the_shape_of_the_index_and_are_a_copy() -> None:
    bank = Bank(5, 3, seed=0)
    rows = bank.rows(torch.tensor([[1, 4], [0, 0]]))
    assert rows.shape == (2, 2, 3)
    rows.zero_()
    torch.testing.assert_close(bank.vectors.norm(dim=1), torch.ones(5))
    assert not list(bank.parameters())


def test_dinos_centre_of_a_constant_is_one_minus_the_momentum_to_the_t() -> None:
    centre, a = MovingAverage([3], 0.9, first_batch_initialises=False), torch.tensor([1.0, -2.0, 3.0])
    for t in range(1, 6):
        centre.stage(a)
        centre.commit()
        torch.testing.assert_close(centre.value, (1 - 0.9**t) * a)


def test_the_first_batch_initialises_where_asked_and_with_batch_is_what_commit_will_store() -> None:
    average, loop = MovingAverage([2, 2], 0.99, first_batch_initialises=True), torch.zeros(2, 2)
    for t in range(4):
        x = torch.randn(2, 2, generator=torch.Generator().manual_seed(t), requires_grad=False)
        before = state(average)
        coming = average.with_batch(x.requires_grad_())
        assert same(state(average), before)
        assert not coming.requires_grad
        average.stage(x)
        average.commit()
        loop = x.detach() if t == 0 else 0.99 * loop + (1 - 0.99) * x.detach()
        torch.testing.assert_close(average.value, loop)
        assert torch.equal(average.value, coming)


def test_micro_batches_move_an_average_once_by_their_mean() -> None:
    parts, average = [unit(1, seed=i)[0] for i in range(3)], MovingAverage([3], 0.5, first_batch_initialises=False)
    for part in parts:
        average.stage(part)
    average.commit()
    torch.testing.assert_close(average.value, 0.5 * torch.stack(parts).mean(0))


def staged(memory: Memory, seed: int) -> None:
    if isinstance(memory, Queue):
        memory.stage(unit(4, seed=seed))
    elif isinstance(memory, Bank):
        memory.stage(torch.tensor([1, 2, 3, 5]), unit(4, seed=seed))
    else:
        assert isinstance(memory, MovingAverage)
        memory.stage(unit(1, seed=seed)[0])


KINDS = {
    "queue": lambda: Queue(7, 3, seed=0),
    "bank": lambda: Bank(6, 3, seed=0),
    "centre": lambda: MovingAverage([3], 0.9, first_batch_initialises=False),
    "matrix": lambda: MovingAverage([3], 0.9, first_batch_initialises=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_staged_changes_nothing_and_what_is_discarded_never_does(kind: str) -> None:
    memory, twin = KINDS[kind](), KINDS[kind]()
    before = state(memory)
    staged(memory, 1)
    assert same(state(memory), before)
    memory.discard()
    memory.commit()
    assert same(state(memory), before)
    staged(memory, 2)
    memory.commit()
    assert not same(state(memory), before)
    staged(twin, 2)
    twin.commit()
    assert same(state(memory), state(twin))  # nothing of the discarded step


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_memory_goes_on_to_the_bit_and_nothing_staged_is_saved(kind: str) -> None:
    memory = KINDS[kind]()
    for seed in range(3):
        staged(memory, seed)
        memory.commit()
    staged(memory, 99)
    saved = {name: value.clone() for name, value in memory.state_dict().items()}
    twin = KINDS[kind]()
    twin.load_state_dict(saved)
    assert same(state(memory), state(twin))
    assert saved.keys() == dict(memory.named_buffers()).keys()
    memory.discard()
    for one in (memory, twin):
        staged(one, 7)
        one.commit()
    assert same(state(memory), state(twin))


def test_what_is_staged_holds_no_graph() -> None:
    x = unit(2).requires_grad_()
    queue, bank = Queue(4, 3, seed=0), Bank(4, 3, seed=0)
    average = MovingAverage([3], 0.9, first_batch_initialises=False)
    queue.stage(x * 2)
    bank.stage(torch.tensor([0, 1]), x * 2)
    average.stage((x * 2).mean(0))
    held = [*queue._staged, *[rows for _, rows in bank._staged], average._sum]
    assert not [tensor for tensor in held if tensor is None or tensor.requires_grad]


def test_two_processes_remember_what_one_with_the_whole_batch_does() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_memories.py")
    command = [sys.executable, "-W", "ignore", str(script)]
    processes = [
        subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=240)
        if process.returncode:
            [other.kill() for other in processes if other.poll() is None]
        assert process.returncode == 0, err
        answers.append(json.loads(out.splitlines()[-1]))
    alone = remembered(rank=0, world=1)
    assert answers[0] == answers[1]
    assert answers[0]["refused"] == "a queue of 11 keys is given 12 in one step"
    for name, expected in alone.items():
        if name != "refused":
            for a, b in itertools.zip_longest(answers[0][name], expected):
                assert a == pytest.approx(b, abs=1e-6), name
