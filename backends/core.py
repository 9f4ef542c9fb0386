"""What a backend is: one array library's names, the listed extensions, and the way in and out.

A `Backend` is an object to read names from, like a module: `xp = namespace(q); xp.exp(q)`.
The names are those of the Python array API standard (data-apis.org/array-api), which the library
supplies through array-api-compat, plus `EXTENSIONS`, which the standard lacks and each adapter
of this folder supplies.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

EXTENSIONS = {
    "scatter_add": "scatter_add(shape, index, values): zeros(shape) with values added at x[index], "
    "repeated positions summed in the order of values",
    "einsum": "einsum(subscripts, *operands): Einstein sum, explicit output, ellipsis allowed",
    "erf": "erf(x): error function of a floating-point array, dtype kept",
    "erfc": "erfc(x): 1 - erf(x) without the cancellation, dtype kept",
    "gammaln": "gammaln(x): log |Gamma(x)|, dtype kept",
    "polygamma": "polygamma(n, x): n-th derivative of digamma (n = 0: digamma), n a Python int",
    "solve_triangular": "solve_triangular(a, b, *, upper=False): a^-1 b, reading one triangle of a "
    "alone; a of shape [..., n, n], b of [..., n, k], the same leading axes",
    "windows": "windows(x, size, strides, dilation): every window over the last axes of x, a copy "
    "of shape [..., *size, *places]",
    "overlap_add": "overlap_add(w, shape, strides, dilation): transpose of windows: each window "
    "added where it was read, over last axes of `shape`",
}


class Backend:
    """The names of one array library, with the extension set.

    Parameters
    ----------
    name : str
        "numpy", "strict" or "cupy".
    library : module
        Namespace of the array API standard over that library.
    array_class : type
        Class of the library's arrays.
    scalars : tuple of type
        Classes of the library's own scalars, which count as its arrays.
    refused : tuple of type
        Subclasses of `array_class` that compute something else (masked arrays, matrices).
    from_numpy, to_numpy : callable
        Carry values over from and to a NumPy array; the result shares no memory.
    extensions : dict of str to callable
        One function for each name in `EXTENSIONS`.
    native : dict, optional
        Names that replace the library's, same meaning.

    Raises
    ------
    AttributeError
        On reading a name that is neither in the library nor in `EXTENSIONS`.
    """

    def __init__(
        self,
        name: str,
        library: Any,
        array_class: type,
        *,
        from_numpy: Callable,
        to_numpy: Callable,
        extensions: dict[str, Callable],
        native: dict[str, Any] | None = None,
        scalars: tuple[type, ...] = (),
        refused: tuple[type, ...] = (),
    ):
        if set(extensions) != set(EXTENSIONS):
            odd = sorted(set(extensions) ^ set(EXTENSIONS))
            raise ValueError(f"Backend: {name} and EXTENSIONS differ in {', '.join(odd)}")
        self.name = name
        self.library = library
        self.array_class = array_class
        self.scalars = scalars
        self.refused = refused
        self.from_numpy = from_numpy
        self.to_numpy = to_numpy
        self.__dict__.update(native or {}, **extensions)

    def __getattr__(self, key: str) -> Any:
        # Runs on a name's first use only: the value then lies in the instance dict.
        try:
            value = getattr(self.library, key)
        except AttributeError:
            raise AttributeError(
                f"backend {self.name!r} has no {key!r}: it is neither in the array API standard "
                f"nor in backends.EXTENSIONS ({', '.join(EXTENSIONS)})"
            ) from None
        self.__dict__[key] = value
        return value

    def holds(self, cls: type) -> bool:
        """Whether values of class `cls` are arrays (or scalars) of this backend."""
        own = (self.array_class, *self.scalars)
        return issubclass(cls, own) and not issubclass(cls, self.refused)

    def bound(self, name: str, f: Callable) -> Callable:
        """``f(xp, *arrays, **options)``, the function `name` written in a backend's names, for this one."""
        return partial(f, self)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(self.library)})

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def __reduce__(self):
        from backends import get

        return get, (self.name,)
