# %% [markdown]
# # What do our users do?
#
# A shop logs its events with the `logging` module; this notebook asks the table in which they end up. The PostgreSQL is
# one of its own, in a directory: nothing to install, nothing to start.

# %%
import logging
import random
import tempfile
from datetime import datetime, timedelta, timezone

from pawprint_logging import PawprintHandler, Statistics

directory = tempfile.mkdtemp(prefix="shop-", dir="/tmp")
handler = PawprintHandler(db=f"embedded:{directory}", table="events", create_table=True)
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(handler)

# %% [markdown]
# ## Log
#
# A log line becomes an event by the extra `event`. What else it carries is kept with it. Events of the past, such as
# these, bring their own time.

# %%
dice = random.Random(7)
begin = datetime.now(timezone.utc) - timedelta(weeks=8)
for number in range(400):
    user, plan = f"user-{number}", dice.choice(("free", "free", "pro"))
    moment = begin + timedelta(days=dice.uniform(0, 55))
    logger.info("hello", extra={"event": "signup", "user_id": user, "timestamp": moment, "plan": plan})
    while dice.random() < (0.85 if plan == "pro" else 0.7) and moment < datetime.now(timezone.utc) - timedelta(days=5):
        moment += timedelta(days=dice.expovariate(1 / 3), minutes=dice.uniform(1, 200))
        logger.info(
            "looked", extra={"event": "viewed", "user_id": user, "timestamp": moment, "page": dice.randrange(40)}
        )
        if dice.random() < 0.4:
            moment += timedelta(minutes=4)
            logger.info("chose", extra={"event": "added_to_cart", "user_id": user, "timestamp": moment})
            if dice.random() < 0.5:
                moment += timedelta(minutes=3)
                paid = {"event": "purchase", "user_id": user, "timestamp": moment, "amount": dice.randrange(5, 90)}
                logger.info("paid", extra=paid)

handler.flush()
handler

# %% [markdown]
# ## Ask

# %%
tracker = handler.tracker
tracker

# %%
tracker.top("event")

# %%
tracker.count(by="event", resolution="week").pawprint.plot(title="Events per week")
# %%
stats = Statistics(tracker)
funnel = stats.funnel("signup", "viewed", "added_to_cart", "purchase")
funnel

# %%
funnel.pawprint.plot()
# %%
stats.retention("week").pawprint.plot()
# %%
stats.paths(after="signup", depth=3, limit=6).pawprint.plot()
# %% [markdown]
# Who pays more? A condition looks into what was logged beside the event.

# %%
tracker.sum("metadata__amount", event="purchase", resolution="week").pawprint.plot(title="Money per week")
# %%
handler.close()
