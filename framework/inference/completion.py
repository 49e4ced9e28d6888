"""Requests to completions: side by side, in their order, checked, and asked again where a check fails."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from framework.inference.decoder import Decoder
from framework.inference.request import Finish, Likelihood, Piece, Request

AHEAD = 16  # requests for each row that may be done before one that came earlier is


@dataclass(frozen=True)
class Completion:
    """A continuation that has ended; see `Piece` for its fields.

    failed: what a check says against the text; None: nothing.
    attempts: how often the text was asked for.
    """

    text: str
    tokens: tuple[int, ...]
    likelihoods: tuple[Likelihood, ...]
    finish: Finish
    failed: str | None = None
    attempts: int = 1


Judge = Callable[[str], tuple[str, str | None]]  # a text to what becomes of it, and what speaks against it


def joined(pieces: Iterable[Piece]) -> Completion:
    """The pieces of one request as one."""
    pieces = list(pieces)
    finish = pieces[-1].finish
    assert finish is not None
    return Completion(
        "".join(piece.text for piece in pieces),
        tuple(token for piece in pieces for token in piece.tokens),
        tuple(likelihood for piece in pieces for likelihood in piece.likelihoods),
        finish,
    )


def judged(completion: Completion, judge: Judge) -> Completion:
    """The completion with what becomes of its text."""
    text, failed = judge(completion.text)
    return replace(completion, text=text, failed=failed)


@dataclass
class _Job:
    place: int
    request: Request
    attempts: int = 1
    pieces: list[Piece] = field(default_factory=list)


def complete(
    decoder: Decoder,
    requests: Iterable[tuple[int, Request]],
    *,
    rows: int,
    judge: Judge = lambda text: (text, None),
    retries: int = 0,
) -> Iterator[Completion]:
    """The completion of each request, in their order, each as soon as those before it are done.

    requests: with the number from which, and from the seed, its random numbers follow; taken as rows become free.
    rows: of the decoder.
    retries: how often a text that fails the judge's check is asked for again, with another seed.
    """
    source = iter(requests)
    jobs: dict[int, _Job] = {}
    done: dict[int, Completion] = {}
    submitted = told = 0
    places: dict[int, int] = {}  # of a number of a request, in the order of the output

    def submit(job: _Job) -> None:
        sampling = job.request.sampling.of(job.place, job.attempts - 1)
        jobs[decoder.submit(replace(job.request, sampling=sampling))] = job

    while True:
        while decoder.waiting < rows and submitted - told < AHEAD * rows:
            pair = next(source, None)
            if pair is None:
                break
            places[pair[0]] = submitted
            submitted += 1
            submit(_Job(*pair))
        if not jobs:
            return
        for number, piece in decoder.step():
            job = jobs[number]
            job.pieces.append(piece)
            if piece.finish is None:
                continue
            del jobs[number]
            completion = replace(judged(joined(job.pieces), judge), attempts=job.attempts)
            if completion.failed is not None and job.attempts <= retries:
                submit(_Job(job.place, job.request, job.attempts + 1))
            else:
                done[places.pop(job.place)] = completion
        while told in done:
            yield done.pop(told)
            told += 1
