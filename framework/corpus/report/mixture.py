"""The mixture that was asked for beside the tokens that there are."""

from collections.abc import Mapping

from framework.corpus.report.schema import Mixture, Pass, Share


def mixture_of(weights: Mapping[str, float], tokens: Mapping[str, int]) -> Mixture:
    """Shares, and how often a run reads each corpus: the stream keeps to the weights and begins a corpus anew.

    Args:
        weights: share of the training tokens by corpus, positive, not normalised.
        tokens: for training, by corpus, at least 1.
    """
    whole, there = sum(weights.values()), sum(tokens.values())
    shares = {
        name: Share(weight, weight / whole, tokens[name] / there, tokens[name]) for name, weight in weights.items()
    }
    enough = [share.tokens / share.asked for share in shares.values()]  # for one epoch of each corpus
    runs = {
        "first_corpus_read": round(min(enough)),
        "as_many_as_there_are": there,
        "every_corpus_read": round(max(enough)),
    }
    passes = [
        Pass(run, total, {name: round(share.asked * total / share.tokens, 4) for name, share in shares.items()})
        for run, total in runs.items()
    ]
    return Mixture(there, shares, passes)
