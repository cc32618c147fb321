"""Cart and checkout: a task as a Python file, for what keys cannot say.

TASK takes the keys of a YAML task; the functions beside it draw parameters, judge, and play the task.
"""

TASK = {
    "goal": 'Order {count} x {product} for "{name}", postcode "{postcode}". Delivery: {delivery}.',
    "start": "/",
    "done": {"url": "/checkout/done"},
    "max_steps": 14,
    "partial": True,
}

PRODUCTS = {
    "Border Spade": "spade",
    "Hand Trowel": "trowel",
    "Watering Can": "can",
    "Hedge Shears": "shears",
    "Leather Gloves": "gloves",
    "Leaf Rake": "rake",
}


def parameters(rng):
    """Equal seed, equal parameters: everything comes from ``rng``."""
    area, letters = rng.choice(["LS", "YO", "M", "B", "EH", "CF"]), "ABDEFGHJLN"
    return {
        "count": rng.randint(1, 5),
        "product": rng.choice(list(PRODUCTS)),
        "name": f"{rng.choice(['Ana', 'Bo', 'Cem', 'Dina', 'Eli'])} {rng.choice(['Marsh', 'Lane', 'Heath', 'Brook'])}",
        "postcode": f"{area}{rng.randint(1, 28)} {rng.randint(1, 9)}{rng.choice(letters)}{rng.choice(letters)}",
        "delivery": rng.choice(["Standard", "Next day", "Collect in shop"]),
    }


def check(visit):
    """The share of the order that is as it should be; 1 is success."""
    wanted, placed = visit.parameters, visit.get("/api/state")["placed"]
    if placed is None:
        return 0
    right = [
        placed["items"] == {PRODUCTS[wanted["product"]]: wanted["count"]},
        *(placed[key] == wanted[key] for key in ("name", "postcode", "delivery")),
    ]
    return sum(right) / len(right)


def expert(page):
    """Plays the task through what the agent sees and may do."""
    count, product, name, postcode, delivery = page.read(
        r'Order (\d+) x (.*) for "(.*)", postcode "(.*)"\. Delivery: (.*)\.$'
    ).groups()
    if page.maybe("Place order", "button"):
        fields = [(page.named("Full name", "textbox"), name), (page.named("Postcode", "textbox"), postcode)]
        way = page.named(delivery, "radio")
        filled = page.fill_all(fields)
        return filled or (page.submit("Place order") if "checked" in way.states else page.click(way))
    quantity = page.maybe(f"Quantity of {product}", "textbox")
    if quantity is None:
        return page.click(page.named(f"Add {product} to cart", "button"))
    if quantity.value != count:
        return page.fill(quantity, count)
    # What was written counts once it was updated; the cart in the page's head says how many there are.
    in_cart = page.maybe(f"Cart ({count})", "link")
    return page.submit("Go to checkout") if in_cart else page.submit("Update")
