"""Facts about CelebA: the size of its portraits, its attributes in order, and which of them a treatment changes."""

WIDTH, HEIGHT = 178, 218
"""Size of the aligned portraits in pixels."""

ATTRIBUTES: tuple[str, ...] = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips",
    "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin",
    "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open",
    "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline",
    "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

TRAINING_IMAGES = 162_770

CAUSED_BY: dict[str, frozenset[str]] = {
    # Beard, hair loss and bone structure; and what custom ties to sex: make-up, jewellery, dress and hair styles.
    # Attractive is a rating, given after looking at everything else.
    "Male": frozenset(
        {
            "5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns", "Bald", "Receding_Hairline",
            "Arched_Eyebrows", "Bushy_Eyebrows", "Heavy_Makeup", "Rosy_Cheeks", "Wearing_Lipstick",
            "Wearing_Earrings", "Wearing_Necklace", "Wearing_Necktie", "Bangs", "Straight_Hair", "Wavy_Hair",
            "Attractive", "Big_Nose", "Pointy_Nose", "Big_Lips", "Oval_Face", "High_Cheekbones", "Double_Chin",
        }
    ),
    # Ageing of hair, skin and shape. Gray_Hair replaces the other hair colours, so these change too;
    # long-sightedness brings glasses.
    "Young": frozenset(
        {
            "Gray_Hair", "Black_Hair", "Brown_Hair", "Blond_Hair", "Bald", "Receding_Hairline",
            "Bags_Under_Eyes", "Double_Chin", "Chubby", "Big_Nose", "Eyeglasses", "Attractive",
        }
    ),
}  # fmt: skip
"""The attributes that each of two treatments changes: descendants, never covariates (docs/method.md)."""
