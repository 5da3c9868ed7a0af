"""The templates of validation.jsonl and their words."""

from tools.embedded.word_problem_templates.template import Template, problem

# fmt: off

WORDS: dict[str, list[str]] = {
    "name": [
        "Adrian", "Bianca", "Cedric", "Dalia", "Emil", "Fatima", "Gavin", "Hana",
        "Ivan", "Joanna", "Kofi", "Lucia", "Marek", "Nadia", "Oscar", "Petra",
    ],
    "souvenir": ["shell", "pebble", "magnet", "fossil", "keyring", "figurine"],
    "animal": ["penguin", "seal", "turtle", "dolphin", "stingray"],
    "snack": ["pretzel", "dumpling", "taco", "bagel", "samosa"],
    "furniture": ["desk", "sofa", "mirror", "wardrobe", "dresser"],
    "decoration": ["cushion", "candle", "lamp", "curtain", "rug"],
    "vegetable": ["carrot", "pepper", "pumpkin", "cucumber", "bean"],
    "cord": ["rope", "cable", "wire", "hose"],
    "sport": ["soccer", "volleyball", "hockey", "basketball"],
}

TEMPLATES: list[Template] = [
    # One step.
    problem("aquarium-pools", 1,
        "An aquarium keeps {a} {animal}s in its north pool and {b} in its south pool. "
        "How many {animal}s live in the two pools?",
            "The two pools have [a+b=c] {animal}s.",
            a=(4, 40), b=(4, 40)),
    problem("parking-spaces", 1,
        "A small parking garage has {a} spaces, and cars are in {b} of them. How many spaces are free?",
            "The garage has [a-b=c] free spaces.",
            a=(15, 50), b=(5, 40)),
    problem("tent-sleepers", 1,
        "Each tent at a campsite sleeps {a} people. How many people can sleep in {b} tents?",
            "The {b} tents sleep [b*a=c] people.",
            a=(2, 8), b=(3, 12)),
    problem("cord-pieces", 1,
        "A {cord} that is {a} meters long is cut into pieces of {b} meters each. "
        "How many pieces are there?",
            "The {cord} makes [a/b=c] pieces.",
            a=(8, 72), b=(2, 9)),
    problem("beanbag-throw", 1,
        "{name} throws a beanbag {a} meters and {name2} throws it {b} meters. "
        "How many meters farther does {name} throw than {name2}?",
            "{name} throws [a-b=c] meters farther.",
            a=(10, 30), b=(5, 25)),
    problem("team-prize", 1,
        "A {sport} team of {a} players wins ${b} and divides the prize evenly. "
        "How many dollars does every player receive?",
            "Every player receives [$b/a=c].",
            a=(4, 9), b=(12, 96)),
    problem("fair-rides", 1,
        "After paying ${a} for rides at the fair, {name} has ${b} left. "
        "How many dollars did {name} have before the rides?",
            "{name} had [$a+b=c] before the rides.",
            a=(5, 30), b=(3, 40)),
    problem("flag-trim", 1,
        "A triangular flag has sides of {a}, {b} and {c} centimeters. "
        "How many centimeters of trim does it take to line all its sides?",
            "The trim for all its sides is [a+b+c=d] centimeters.",
            a=(12, 22), b=(12, 22), c=(12, 22)),
    problem("furniture-markdown", 1,
        "A secondhand {furniture} is marked ${a}, but this month it sells for ${b} less. "
        "How many dollars does it cost this month?",
            "This month it costs [$a-b=c].",
            a=(20, 70), b=(4, 30)),
    problem("theater-seats", 1,
        "A small theater has {a} rows with {b} seats in each. How many seats does the theater have?",
            "The theater has [a*b=c] seats.",
            a=(3, 9), b=(5, 12)),
    # Two steps.
    problem("ferry-cars", 2,
        "A ferry leaves with {a} cars on the lower deck and {b} cars on the upper deck. At an island, "
        "{c} cars drive off. How many cars stay aboard?",
            "The ferry leaves with [a+b=d] cars.",
            "After the island, [d-c=e] cars stay aboard.",
            a=(8, 30), b=(5, 25), c=(3, 20)),
    problem("flea-market", 2,
        "At a flea market {name} picks out one {furniture} for ${a} and {b} {decoration}s for ${c} each. "
        "What is the total price in dollars?",
            "The {decoration}s come to [$b*c=d].",
            "The total price is [$a+d=e].",
            a=(15, 40), b=(2, 6), c=(3, 9)),
    problem("swimming-workouts", 2,
        "In each workout {name} swims {a} lengths of the pool on the front and {b} on the back. "
        "How many lengths does {name} swim in {c} workouts?",
            "One workout is [a+b=d] lengths.",
            "The {c} workouts add up to [c*d=e] lengths.",
            a=(2, 8), b=(2, 8), c=(2, 8)),
    problem("rain-barrel", 2,
        "A rain barrel contains {a} liters of water. {name} uses it to give {b} {vegetable} plants "
        "{c} liters each. How many liters stay in the barrel?",
            "The plants receive [b*c=d] liters.",
            "The barrel still contains [a-d=e] liters.",
            a=(25, 80), b=(3, 12), c=(2, 6)),
    problem("ages-added", 2,
        "{name} is {a} years old and {name2} is {b} years younger. What do their two ages add up to?",
            "{name2} is [a-b=c] years old.",
            "Their ages add up to [a+c=d].",
            a=(8, 40), b=(2, 15)),
    problem("chef-plates", 2,
        "A chef makes {a} {snack}s, sets {b} aside for the staff and serves the others on plates of "
        "{c}. How many plates are served?",
            "The chef serves [a-b=d] {snack}s.",
            "That makes [d/c=e] plates.",
            a=(15, 60), b=(3, 12), c=(3, 8)),
    problem("bottling-machine", 2,
        "A machine fills {a} bottles every minute. "
        "How many minutes does it need to fill {b} cases of {c} bottles each?",
            "The cases hold [b*c=d] bottles.",
            "The machine needs [d/a=e] minutes.",
            a=(3, 9), b=(2, 9), c=[6, 8, 10, 12]),
    # Three steps.
    problem("laps-minutes", 3,
        "{name} runs {a} laps on Wednesday and twice as many on Thursday. Each lap takes {b} minutes. "
        "How many minutes does {name} run on the two days?",
            "On Thursday {name} runs twice {a} laps, or [2*a=c] laps.",
            "The two days make [a+c=d] laps.",
            "They take [d*b=e] minutes.",
            a=(2, 4), b=(2, 10)),
    problem("souvenirs-compared", 3,
        "{name} finds {a} {souvenir}s on vacation. {name2} finds {b} times as many as {name}, and "
        "{name3} finds {c} more than {name}. How many more {souvenir}s does {name2} find than "
        "{name3}?",
            "{name2} finds [a*b=d] {souvenir}s.",
            "{name3} finds [a+c=e] {souvenir}s.",
            "{name2} finds [d-e=f] more {souvenir}s than {name3}.",
            a=(4, 12), b=(3, 6), c=(2, 15)),
    problem("vacation-lunches", 3,
        "{name} starts a vacation with ${a}. A boat ride takes ${b} of it, and {name} divides the "
        "remainder evenly over {c} days. Each day ${d} goes to lunch. How many dollars does that "
        "leave for other things each day?",
            "After the boat ride, {name} has [$a-b=e].",
            "For each day there is [$e/c=f].",
            "After lunch, that leaves [$f-d=g] each day.",
            a=(30, 90), b=(8, 30), c=(3, 9), d=(3, 8)),
]
