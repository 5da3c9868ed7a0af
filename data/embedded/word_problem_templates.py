"""Templates and word lists for word_problems.py, one set for each split.

How to read an entry:

- the first argument is the number of steps, then comes the question, then one answer line per step;
- `{a}` is a number drawn for the template: `a=(12, 60)` means from 12 to 60, `a=[20, 50]` one of these;
- `{thing}` is a word from the split's list of that name; `{thing2}` and `{thing3}` are others from it;
- `[a+b=c]` works out a step: it prints `12+7=<<12+7=19>>19`, and later steps can use the result as `c`;
  `[$a+b=c]` prints a dollar sign before the result.

A step uses only + and -, or only * and /, and is worked out from left to right. Numbers are drawn again until
they all differ and every step keeps to the limits of word_problems.py, so an entry need not arrange for that.
Every noun takes a plain -s in the plural, and a list used after "a" has no word that would need "an".
"""

from typing import NamedTuple

Draw = tuple[int, int] | list[int]


class Template(NamedTuple):
    steps: int
    question: str
    answer: tuple[str, ...]
    numbers: dict[str, Draw]


def problem(steps: int, question: str, *answer: str, **numbers: Draw) -> Template:
    """A template, checked to have one answer line for each declared step."""
    if len(answer) != steps:
        raise ValueError(f"{steps} steps declared but {len(answer)} answer lines given: {question}")
    return Template(steps, question, answer, numbers)


# The tables below are laid out by hand.
# fmt: off

WORDS: dict[str, dict[str, list[str]]] = {
    "train": {
        "name": [
            "Ava", "Ben", "Carla", "Dev", "Elena", "Farid", "Grace", "Hugo", "Ida", "Jamal", "Kira", "Leo",
            "Mina", "Noah", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tara", "Umar", "Vera", "Yuki", "Zoe",
        ],
        "thing": ["marble", "sticker", "button", "bead", "crayon", "pencil", "badge", "ribbon", "balloon"],
        "treat": ["muffin", "cookie", "cupcake", "waffle", "scone", "brownie", "doughnut"],
        "fruit": ["apple", "pear", "plum", "lemon", "fig", "orange", "lime"],
        "garment": ["shirt", "cap", "jacket", "hoodie", "sweater", "belt", "vest"],
        "flower": ["tulip", "rose", "daffodil", "sunflower", "carnation", "dahlia"],
        "animal": ["goat", "cow", "pig", "horse", "donkey", "llama"],
        "bird": ["duck", "chicken", "turkey", "peacock"],
        "club": ["chess", "drama", "robotics", "music", "cooking", "science"],
        "goal": ["bike", "tablet", "guitar", "telescope", "camera", "skateboard"],
        "instrument": ["piano", "violin", "flute", "cello", "trumpet", "clarinet"],
        "plot": ["garden", "playground", "field", "lawn", "courtyard"],
        "room": ["bedroom", "classroom", "library", "hallway", "lounge"],
        "tree": ["maple", "pine", "cherry", "birch", "willow", "cedar"],
        "vehicle": ["train", "truck", "van", "motorcycle"],
    },
    "test": {
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
    },
}

TRAIN: list[Template] = [
    # One step.
    problem(1, "{name} has {a} {thing}s. {name2} gives {name} {b} more. "
               "How many {thing}s does {name} have now?",
            "{name} now has [a+b=c] {thing}s.",
            a=(5, 40), b=(2, 40)),
    problem(1, "A bakery tray holds {a} {treat}s. Customers buy {b} of them before noon. "
               "How many {treat}s are left on the tray?",
            "There are [a-b=c] {treat}s left on the tray.",
            a=(12, 40), b=(3, 30)),
    problem(1, "{name} picked {a} {fruit}s and {name2} picked {b}. "
               "How many more {fruit}s did {name} pick than {name2}?",
            "{name} picked [a-b=c] more {fruit}s than {name2}.",
            a=(15, 40), b=(4, 30)),
    problem(1, "A craft store keeps {thing}s in boxes of {b}. How many {thing}s are there in {a} full boxes?",
            "The {a} boxes hold [a*b=c] {thing}s.",
            a=(2, 9), b=(3, 12)),
    problem(1, "{name} gives away {a} {thing}s, sharing them equally among {b} friends. "
               "How many {thing}s does each friend get?",
            "Each friend gets [a/b=c] {thing}s.",
            a=(8, 72), b=(2, 9)),
    problem(1, "At a yard sale, one {garment} costs ${a}. How many dollars do {b} of these {garment}s cost?",
            "The {b} {garment}s cost [$b*a=c].",
            a=(3, 12), b=(2, 9)),
    problem(1, "{name} buys a {garment} for ${a} and pays with a ${b} bill. "
               "How many dollars of change does {name} get?",
            "{name} gets [$b-a=c] in change.",
            a=(6, 45), b=[20, 50]),
    problem(1, "A {vehicle} makes {a} trips every day. How many trips does it make in {b} days?",
            "In {b} days the {vehicle} makes [a*b=c] trips.",
            a=(2, 12), b=(3, 9)),
    problem(1, "{name} sticks tape around the edge of a sign that has {b} equal sides, each {a} inches long. "
               "How many inches of tape are needed?",
            "The {b} sides take [b*a=c] inches of tape.",
            a=(4, 12), b=(3, 8)),
    problem(1, "{name} is {a} years old. {name2} is {b} years older than {name}. How old is {name2}?",
            "{name2} is [a+b=c] years old.",
            a=(5, 30), b=(2, 25)),
    problem(1, "{name} practices the {instrument} {b} times a week, for {a} minutes each time. "
               "How many minutes of practice is that in a week?",
            "In a week {name} practices for [b*a=c] minutes.",
            a=(5, 12), b=(2, 6)),
    problem(1, "A cartoon lasts {a} minutes. {name} has watched {b} minutes of it. "
               "How many minutes of the cartoon are left?",
            "There are [a-b=c] minutes left.",
            a=(20, 60), b=(4, 40)),
    problem(1, "In a quiz, {name} scores {a} points and {name2} scores {b} times as many. "
               "How many points does {name2} score?",
            "{name2} scores [a*b=c] points.",
            a=(3, 12), b=(3, 6)),
    problem(1, "{name} plants {a} {flower}s in {b} equal rows. How many {flower}s are there in each row?",
            "Each row has [a/b=c] {flower}s.",
            a=(10, 84), b=(2, 9)),
    problem(1, "{name} packs {a} {treat}s into bags, putting {b} in each bag. "
               "How many bags does {name} need?",
            "{name} needs [a/b=c] bags.",
            a=(8, 72), b=(2, 9)),
    problem(1, "A young {tree} tree was {a} inches tall last spring. It is {b} inches tall today. "
               "How many inches has it grown?",
            "The tree has grown [b-a=c] inches.",
            a=(8, 30), b=(20, 50)),
    problem(1, "The {club} club needs {a} members to enter a contest. So far {b} people have joined. "
               "How many more members does the club need?",
            "The club needs [a-b=c] more members.",
            a=(10, 40), b=(3, 30)),
    problem(1, "A bookshop sold {a} books on Friday, {b} on Saturday and {c} on Sunday. "
               "How many books did it sell over the three days?",
            "Over the three days it sold [a+b+c=d] books.",
            a=(4, 30), b=(4, 30), c=(4, 30)),
    problem(1, "A rectangular mat in the {room} is {a} feet long and {b} feet wide. "
               "How many square feet of the floor does the mat cover?",
            "The mat covers [a*b=c] square feet.",
            a=(6, 12), b=(2, 6)),
    problem(1, "The {club} club meets for {a} minutes. News takes the first {b} minutes and planning takes "
               "the next {c}. How many minutes of the meeting remain?",
            "There are [a-b-c=d] minutes left.",
            a=[30, 40, 45, 50, 60], b=(3, 12), c=(5, 20)),
    problem(1, "A child ticket to the {instrument} concert costs ${a}, and an adult ticket costs ${b} more. "
               "How many dollars does one adult ticket cost?",
            "An adult ticket costs [$a+b=c].",
            a=(5, 25), b=(2, 12)),
    problem(1, "A {vehicle} goes {a} miles, stops for fuel, and then goes {b} miles to the end of the trip. "
               "How many miles long is the trip?",
            "The trip is [a+b=c] miles long.",
            a=(8, 40), b=(5, 40)),
    problem(1, "Working at a steady pace, {name} paints {a} feet of the fence around a {plot} in {b} hours. "
               "How many feet of fence does {name} paint in one hour?",
            "In one hour {name} paints [a/b=c] feet.",
            a=(8, 72), b=(2, 8)),
    problem(1, "A teacher splits {a} students into groups of {b}. How many groups are there?",
            "There are [a/b=c] groups.",
            a=(8, 48), b=(2, 8)),
    # Two steps.
    problem(2, "{name} buys {a} packs of {thing}s with {b} in each pack, then gives {c} of these {thing}s to "
               "{name2}. How many of them does {name} keep?",
            "The packs hold [a*b=d] {thing}s.",
            "{name} keeps [d-c=e] {thing}s.",
            a=(2, 9), b=(4, 12), c=(3, 30)),
    problem(2, "At a thrift shop {name} buys {a} {garment}s for ${b} each and hands the cashier a ${c} bill. "
               "How many dollars does {name} get back?",
            "The {garment}s cost [$a*b=d].",
            "{name} gets back [$c-d=e].",
            a=(2, 6), b=(4, 12), c=[50]),
    problem(2, "{name} has {a} {thing}s. {name2} has {b} more {thing}s than {name}. "
               "How many {thing}s do the two of them have together?",
            "{name2} has [a+b=c] {thing}s.",
            "Together they have [a+c=d] {thing}s.",
            a=(3, 30), b=(2, 20)),
    problem(2, "On Saturday {name} picks {a} {fruit}s. On Sunday {name} picks {b} times as many. "
               "How many {fruit}s does {name} pick that weekend?",
            "On Sunday {name} picks [a*b=c] {fruit}s.",
            "Over the weekend {name} picks [a+c=d] {fruit}s.",
            a=(3, 12), b=(3, 7)),
    problem(2, "A rectangular {plot} is {a} yards long and {b} yards wide. {name} walks around its edge "
               "once. How many yards does {name} walk?",
            "One long side and one short side measure [a+b=c] yards.",
            "There are 2 of each, so {name} walks [c+c=d] yards.",
            a=(15, 32), b=(6, 14)),
    problem(2, "A used {goal} costs ${a}. {name} already has ${b} and saves ${c} every week. "
               "After how many weeks can {name} buy the {goal}?",
            "{name} still needs [$a-b=d].",
            "Saving that much takes [d/c=e] weeks.",
            a=(20, 80), b=(4, 40), c=(3, 9)),
    problem(2, "{name} brings {a} {treat}s to a picnic and {name2} brings {b}. All of the {treat}s are "
               "shared equally among {c} children. How many does each child get?",
            "There are [a+b=d] {treat}s at the picnic.",
            "Each child gets [d/c=e] {treat}s.",
            a=(4, 30), b=(4, 30), c=(3, 9)),
    problem(2, "A book has {a} pages. {name} reads {b} pages a day for {c} days. "
               "How many pages are left to read?",
            "{name} reads [b*c=d] pages.",
            "There are [a-d=e] pages left.",
            a=(24, 90), b=(3, 12), c=(2, 7)),
    problem(2, "A bus carries {a} passengers. At the next stop {b} of them get off and {c} people get on. "
               "How many passengers are on the bus then?",
            "After {b} get off, there are [a-b=d] passengers.",
            "After {c} get on, there are [d+c=e] passengers.",
            a=(12, 40), b=(2, 15), c=(2, 15)),
    problem(2, "{name} earns ${a} an hour at the {club} camp, working {b} hours on Monday and {c} hours on "
               "Tuesday. How many dollars does {name} earn in all?",
            "{name} works [b+c=d] hours.",
            "{name} earns [$d*a=e].",
            a=(6, 12), b=(2, 6), c=(2, 6)),
    problem(2, "A box holds {a} {thing}s, and half of them are red. Of the others, {b} are blue and the rest "
               "are green. How many {thing}s are green?",
            "The half that is not red is [a/2=c] {thing}s.",
            "Of these, [c-b=d] are green.",
            a=(8, 24), b=(2, 10)),
    problem(2, "A recipe uses {a} cups of flour to make {b} {fruit} cakes. "
               "How many cups of flour are needed to make {c} of these cakes?",
            "One cake needs [a/b=d] cups of flour.",
            "To make {c} cakes, [c*d=e] cups are needed.",
            a=(4, 15), b=(2, 5), c=(3, 12)),
    problem(2, "{name} is {a} years old, and {name2} is {b} times as old. "
               "How old will {name2} be in {c} years?",
            "{name2} is now [a*b=d] years old.",
            "In {c} years, {name2} will be [d+c=e] years old.",
            a=(3, 12), b=(3, 5), c=(2, 15)),
    problem(2, "Every school day {name} cycles {a} miles to school and then the same way home. "
               "How many miles does {name} cycle in {b} school days?",
            "There and back is [a+a=c] miles.",
            "In {b} school days, {name} cycles [b*c=d] miles.",
            a=(2, 6), b=(3, 12)),
    problem(2, "{name} cuts {a} {flower}s, gives {b} to a neighbor and splits the rest equally among {c} "
               "vases. How many {flower}s go into each vase?",
            "After the gift, [a-b=d] {flower}s remain.",
            "Each vase gets [d/c=e] {flower}s.",
            a=(12, 50), b=(2, 15), c=(2, 8)),
    problem(2, "Each of {name}'s {a} hens lays {b} eggs in one week. {name} packs all of these eggs in "
               "cartons of {c}. How many cartons does {name} fill?",
            "The hens lay [a*b=d] eggs.",
            "{name} fills [d/c=e] cartons.",
            a=(2, 12), b=(2, 6), c=[4, 6, 8]),
    problem(2, "An empty crate weighs {a} pounds. {name} fills it with {b} melons that weigh {c} pounds "
               "each. How many pounds does the full crate weigh?",
            "The melons weigh [b*c=d] pounds.",
            "The full crate weighs [a+d=e] pounds.",
            a=(3, 15), b=(4, 12), c=(2, 8)),
    # Three steps.
    problem(3, "{name} buys {a} {garment}s at ${b} each and {c} {garment2}s at ${d} each. "
               "How many dollars does {name} spend?",
            "The {garment}s cost [$a*b=e].",
            "The {garment2}s cost [$c*d=f].",
            "{name} spends [$e+f=g].",
            a=(2, 5), b=(4, 10), c=(2, 5), d=(4, 10)),
    problem(3, "{name} spends ${a} on lemons and ${b} on sugar, then sells {c} cups of lemonade for ${d} "
               "each. How many dollars of profit does {name} make?",
            "Lemons and sugar cost [$a+b=e].",
            "Selling the lemonade brings in [$c*d=f].",
            "The profit is [$f-e=g].",
            a=(3, 12), b=(2, 8), c=(7, 12), d=(2, 5)),
    problem(3, "A farm keeps {a} {animal}s and {b} {bird}s. How many legs do these animals have in all?",
            "Each {animal} has 4 legs, so the {animal}s have [4*a=c] legs.",
            "Each {bird} has 2 legs, so the {bird}s have [2*b=d] legs.",
            "In all there are [c+d=e] legs.",
            a=(2, 12), b=(2, 12)),
    problem(3, "{name} earns ${a} each week, spends ${b} of it and saves the rest. After {c} weeks of "
               "saving, {name} buys a used {goal} for ${d}. How many dollars of the savings are left?",
            "{name} saves [$a-b=e] each week.",
            "In {c} weeks, {name} saves [$c*e=f].",
            "The savings left are [$f-d=g].",
            a=(10, 20), b=(2, 10), c=(4, 9), d=(20, 60)),
    problem(3, "A comic book has {a} pages. {name} reads {b} pages on Monday and {c} times as many on Tuesday. "
               "How many pages are left?",
            "On Tuesday {name} reads [b*c=d] pages.",
            "On both days together {name} reads [b+d=e] pages.",
            "There are [a-e=f] pages left.",
            a=(24, 80), b=(3, 12), c=(3, 5)),
    problem(3, "{name} has {a} {thing}s. {name2} has twice as many as {name}. {name3} has {b} fewer than "
               "{name2}. How many {thing}s do the three have together?",
            "{name2} has twice as many as {name}, which is [2*a=c] {thing}s.",
            "{name3} has [c-b=d] {thing}s.",
            "Together they have [a+c+d=e] {thing}s.",
            a=(3, 12), b=(2, 12)),
    problem(3, "{name} bakes {a} trays of {treat}s with {b} on each tray. After {c} of the {treat}s burn, "
               "{name} packs the rest in boxes of {d}. How many boxes does {name} fill?",
            "{name} bakes [a*b=e] {treat}s.",
            "There are [e-c=f] {treat}s left to pack.",
            "{name} fills [f/d=g] boxes.",
            a=(2, 8), b=(4, 12), c=(2, 10), d=(3, 8)),
]

TEST: list[Template] = [
    # One step.
    problem(1, "An aquarium keeps {a} {animal}s in its north pool and {b} in its south pool. "
               "How many {animal}s live in the two pools?",
            "The two pools have [a+b=c] {animal}s.",
            a=(4, 40), b=(4, 40)),
    problem(1, "A small parking garage has {a} spaces, and cars are in {b} of them. How many spaces are free?",
            "The garage has [a-b=c] free spaces.",
            a=(15, 50), b=(5, 40)),
    problem(1, "Each tent at a campsite sleeps {a} people. How many people can sleep in {b} tents?",
            "The {b} tents sleep [b*a=c] people.",
            a=(2, 8), b=(3, 12)),
    problem(1, "A {cord} that is {a} meters long is cut into pieces of {b} meters each. "
               "How many pieces are there?",
            "The {cord} makes [a/b=c] pieces.",
            a=(8, 72), b=(2, 9)),
    problem(1, "{name} throws a beanbag {a} meters and {name2} throws it {b} meters. "
               "How many meters farther does {name} throw than {name2}?",
            "{name} throws [a-b=c] meters farther.",
            a=(10, 30), b=(5, 25)),
    problem(1, "A {sport} team of {a} players wins ${b} and divides the prize evenly. "
               "How many dollars does every player receive?",
            "Every player receives [$b/a=c].",
            a=(4, 9), b=(12, 96)),
    problem(1, "After paying ${a} for rides at the fair, {name} has ${b} left. "
               "How many dollars did {name} have before the rides?",
            "{name} had [$a+b=c] before the rides.",
            a=(5, 30), b=(3, 40)),
    problem(1, "A triangular flag has sides of {a}, {b} and {c} centimeters. "
               "How many centimeters of trim does it take to line all its sides?",
            "The trim for all its sides is [a+b+c=d] centimeters.",
            a=(12, 22), b=(12, 22), c=(12, 22)),
    problem(1, "A secondhand {furniture} is marked ${a}, but this month it sells for ${b} less. "
               "How many dollars does it cost this month?",
            "This month it costs [$a-b=c].",
            a=(20, 70), b=(4, 30)),
    problem(1, "A small theater has {a} rows with {b} seats in each. How many seats does the theater have?",
            "The theater has [a*b=c] seats.",
            a=(3, 9), b=(5, 12)),
    # Two steps.
    problem(2, "A ferry leaves with {a} cars on the lower deck and {b} cars on the upper deck. At an island, "
               "{c} cars drive off. How many cars stay aboard?",
            "The ferry leaves with [a+b=d] cars.",
            "After the island, [d-c=e] cars stay aboard.",
            a=(8, 30), b=(5, 25), c=(3, 20)),
    problem(2, "At a flea market {name} picks out one {furniture} for ${a} and {b} {decoration}s for ${c} each. "
               "What is the total price in dollars?",
            "The {decoration}s come to [$b*c=d].",
            "The total price is [$a+d=e].",
            a=(15, 40), b=(2, 6), c=(3, 9)),
    problem(2, "In each workout {name} swims {a} lengths of the pool on the front and {b} on the back. "
               "How many lengths does {name} swim in {c} workouts?",
            "One workout is [a+b=d] lengths.",
            "The {c} workouts add up to [c*d=e] lengths.",
            a=(2, 8), b=(2, 8), c=(2, 8)),
    problem(2, "A rain barrel contains {a} liters of water. {name} uses it to give {b} {vegetable} plants "
               "{c} liters each. How many liters stay in the barrel?",
            "The plants receive [b*c=d] liters.",
            "The barrel still contains [a-d=e] liters.",
            a=(25, 80), b=(3, 12), c=(2, 6)),
    problem(2, "{name} is {a} years old and {name2} is {b} years younger. What do their two ages add up to?",
            "{name2} is [a-b=c] years old.",
            "Their ages add up to [a+c=d].",
            a=(8, 40), b=(2, 15)),
    problem(2, "A chef makes {a} {snack}s, sets {b} aside for the staff and serves the others on plates of "
               "{c}. How many plates are served?",
            "The chef serves [a-b=d] {snack}s.",
            "That makes [d/c=e] plates.",
            a=(15, 60), b=(3, 12), c=(3, 8)),
    problem(2, "A machine fills {a} bottles every minute. "
               "How many minutes does it need to fill {b} cases of {c} bottles each?",
            "The cases hold [b*c=d] bottles.",
            "The machine needs [d/a=e] minutes.",
            a=(3, 9), b=(2, 9), c=[6, 8, 10, 12]),
    # Three steps.
    problem(3, "{name} runs {a} laps on Wednesday and twice as many on Thursday. Each lap takes {b} minutes. "
               "How many minutes does {name} run on the two days?",
            "On Thursday {name} runs twice {a} laps, or [2*a=c] laps.",
            "The two days make [a+c=d] laps.",
            "They take [d*b=e] minutes.",
            a=(2, 4), b=(2, 10)),
    problem(3, "{name} finds {a} {souvenir}s on vacation. {name2} finds {b} times as many as {name}, and "
               "{name3} finds {c} more than {name}. How many more {souvenir}s does {name2} find than "
               "{name3}?",
            "{name2} finds [a*b=d] {souvenir}s.",
            "{name3} finds [a+c=e] {souvenir}s.",
            "{name2} finds [d-e=f] more {souvenir}s than {name3}.",
            a=(4, 12), b=(3, 6), c=(2, 15)),
    problem(3, "{name} starts a vacation with ${a}. A boat ride takes ${b} of it, and {name} divides the "
               "remainder evenly over {c} days. Each day ${d} goes to lunch. How many dollars does that "
               "leave for other things each day?",
            "After the boat ride, {name} has [$a-b=e].",
            "For each day there is [$e/c=f].",
            "After lunch, that leaves [$f-d=g] each day.",
            a=(30, 90), b=(8, 30), c=(3, 9), d=(3, 8)),
]

TEMPLATES: dict[str, list[Template]] = {"train": TRAIN, "test": TEST}
