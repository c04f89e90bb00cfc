"""A mutant: the product without one of its guards."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """The product with one guard less: `text`, which is in its file exactly once, becomes `without`.

    `title` says what is wrong then, and `noticed_by` is a test without processes that fails within seconds.
    """

    guard: str
    title: str
    path: str
    text: str
    without: str
    noticed_by: str

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")

    def mutate(self, source: str) -> str:
        """Return the source without the guard. Raises ValueError if the guard is not in it exactly once."""
        if (found := source.count(self.text)) != 1:
            raise ValueError(f"{self.path} has this text {found} times, not once. Update the mutant:\n{self.text}")
        return source.replace(self.text, self.without)
