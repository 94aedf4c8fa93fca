"""What is on the shelves."""


class OutOfStock(LookupError):
    """More is wanted than there is."""


class Stock:
    """Quantities by article number."""

    def __init__(self):
        self.on_hand = {}
        self.reserved = {}

    def receive(self, article, quantity):
        """Put a delivery on the shelf and return the new quantity."""
        if quantity <= 0:
            raise ValueError("a delivery has at least one piece")
        self.on_hand[article] = self.on_hand.get(article, 0) + quantity
        return self.on_hand[article]

    def available(self, article):
        """Pieces on the shelf that nobody has reserved."""
        return self.on_hand.get(article, 0) + self.reserved.get(article, 0)

    def reserve(self, article, quantity):
        """Set pieces aside. Raises OutOfStock when there are not enough."""
        if quantity > self.available(article):
            raise OutOfStock(article)
        self.reserved[article] = self.reserved.get(article, 0) + quantity

    def ship(self, article, quantity):
        """Send reserved pieces; an article that is used up is forgotten."""
        if quantity > self.reserved.get(article, 0):
            raise OutOfStock(article)
        self.reserved[article] -= quantity
        self.on_hand[article] = quantity
        if self.on_hand[article] == 0:
            del self.on_hand[article]
            del self.reserved[article]

    def shortages(self, wanted):
        """Article -> missing pieces, for what cannot be delivered in full."""
        missing = {}
        for article, quantity in wanted.items():
            lacking = quantity - self.available(article)
            if lacking >= 0:
                missing[article] = lacking
        return missing
