"""Hashes and counts where tensors are: the same as on the CPU, without a wait, and with nothing lost to other streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradparity.parity.on_gpu.count_differences import count_differences
from gradparity.parity.on_gpu.digests import rows_of, sums_in
from gradparity.parity.on_gpu.plain import plain_rows
from gradparity.parity.on_gpu.with_triton import launcher
from gradparity.trace.late_fingerprints import LateFingerprints, fingerprint, fingerprints_of
from gradparity.trace.late_hash import late_hash_of_all

pytestmark = pytest.mark.cuda

CUDA = torch.device("cuda", 0)


def test_all_that_holds_on_the_cpu_holds_on_a_gpu():
    assert launcher(CUDA) is not None
    tests = Path(__file__).parents[1] / "parity" / "test_on_gpu.py"
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore", tests]
    environment = {**os.environ, "ON_A_GPU": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_digest_is_the_one_of_the_plain_operations_on_both_devices():
    some = [torch.randn(1000, 77), torch.randn(12_345).bfloat16(), torch.randn(64, 64).t(), torch.arange(9)]
    on_gpu = [t.to(CUDA) for t in some]
    digests = [
        [x.digest for x in sums_in(rows.cpu())] for rows in (rows_of(on_gpu), plain_rows(on_gpu), plain_rows(some))
    ]
    assert digests[0] == digests[1] == digests[2]


def test_more_elements_than_32_bits_can_number():
    one = torch.zeros(2**31 + 11, dtype=torch.int8, device=CUDA)
    other = one.clone()
    other[-1] = 1
    ours, theirs = sums_in(rows_of([one, other]).cpu())
    assert ours.digest != theirs.digest
    assert count_differences([one], [other]).tolist() == [1]
    assert ours.digest == sums_in(plain_rows([one]).cpu())[0].digest


def test_nothing_waits_until_a_digest_is_read(waits):
    some = [torch.randn(300, 30, device=CUDA), torch.ones(5, device=CUDA).half(), torch.zeros((), device=CUDA)]
    others = [t.clone() for t in some]
    fingerprints_of(some)
    count_differences(some, others)
    with waits() as told:
        torch.cuda._sleep(100_000_000)
        late = LateFingerprints(some)
        count_differences(some, others)
        assert not late.ready()
    assert told == []
    assert late.get() == fingerprints_of(some)
    assert late.ready()


def test_what_was_read_is_what_was_there_though_it_is_overwritten_at_once():
    tensor = torch.ones(1 << 20, device=CUDA)
    before = fingerprint(tensor)
    torch.cuda._sleep(100_000_000)
    late = LateFingerprints([tensor])
    tensor.zero_()
    assert list(late.get()) == [before]
    assert fingerprint(tensor) != before


def test_memory_of_another_stream_is_not_given_away_before_it_is_read():
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        tensor = torch.ones(1 << 20, device=CUDA)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda._sleep(100_000_000)
    late, where = LateFingerprints([tensor]), tensor.data_ptr()
    del tensor
    with torch.cuda.stream(side):
        assert torch.empty(1 << 20, device=CUDA).data_ptr() != where
    assert list(late.get()) == [fingerprint(torch.ones(1 << 20, device=CUDA))]


def test_one_hash_of_many_tensors_is_read_later_and_sees_their_order(waits):
    some = [torch.randn(100, device=CUDA) for _ in range(20)]
    late_hash_of_all(some)
    with waits() as told:
        one = late_hash_of_all(some)
    assert told == []
    assert str(one) == str(late_hash_of_all([t.clone() for t in some])) != str(late_hash_of_all(some[::-1]))
