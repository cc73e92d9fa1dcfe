"""kdray: a transformer too big to serve becomes a small one that is.

    corpus    rows, tokenised once                       kdray.corpus
    teacher   the large model, fine-tuned where asked    kdray.models, kdray.training
    cache     its logits on every row, paid once         kdray.teacher, kdray.cache
    sweep     students distilled from the cache          kdray.training, kdray.search
    package   the winner, exported and checked           kdray.export, kdray.report
    endpoint  the winner behind HTTP                     kdray.serving
"""

from kdray.threads import bound_spin

__version__ = "0.1.0"
bound_spin()
