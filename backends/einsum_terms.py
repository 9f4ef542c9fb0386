"""Reading Einstein subscripts such as "...ij,...jk->...ik"."""


def parse(subscripts: str, shapes: list[tuple[int, ...]]) -> tuple[list[list], list]:
    """Labels of every operand and of the output, one an axis.

    Parameters
    ----------
    subscripts : str
        Letters for axes, commas between operands, "->" before the output's letters; "..." stands
        for leading or inner axes that broadcast.
    shapes : list of tuple of int
        One shape an operand.

    Returns
    -------
    terms, output : list of list of labels, list of labels
        A label is a letter, or for an axis under "..." its distance from the last such axis.

    Raises
    ------
    ValueError
        No "->", operands or axes that do not match the letters, a letter with two sizes, an
        output letter that is repeated or that no operand has.

    Examples
    --------
    >>> parse("...ij,jk->...ik", [(5, 2, 3), (3, 4)])
    ([[0, 'i', 'j'], ['j', 'k']], [0, 'i', 'k'])
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    if not arrow:
        raise ValueError(f"einsum: {subscripts!r} has no '->'; the output must be written out")
    words = inputs.split(",")
    if len(words) != len(shapes):
        raise ValueError(
            f"einsum: {subscripts!r} names {len(words)} operands, {len(shapes)} arrived"
        )
    terms = [_labels(subscripts, w, len(shape)) for w, shape in zip(words, shapes, strict=True)]
    seen: dict = {}
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        for c, size in zip(term, shape, strict=True):
            where, other = seen.setdefault(c, (k, size))
            if isinstance(c, str) and size != other:
                raise ValueError(
                    f"einsum: {c} is {other} in operand {where} and {size} in operand {k}"
                )
    hidden = sum(isinstance(c, int) for c in seen)
    if hidden and "..." not in output:
        raise ValueError(f"einsum: {subscripts!r} has '...' in an operand, not in the output")
    out = _labels(subscripts, output, len(output.replace("...", "")) + hidden)
    for c in out:
        if c not in seen or out.count(c) > 1:
            raise ValueError(
                f"einsum: output letter {c} of {subscripts!r} "
                + ("is repeated" if c in seen else "is in no operand")
            )
    return terms, out


def _labels(subscripts: str, word: str, ndim: int) -> list:
    left, dots, right = word.partition("...")
    letters = left + right
    if letters and not (letters.isascii() and letters.isalpha()):
        raise ValueError(f"einsum: {word!r} in {subscripts!r} is not letters and one '...'")
    hidden = ndim - len(letters)
    if hidden < 0 or (hidden and not dots):
        raise ValueError(
            f"einsum: {word!r} in {subscripts!r} names {len(letters)} axes, its operand has {ndim}"
        )
    return [*left, *range(hidden - 1, -1, -1), *right]
