from replicad.lab.events import EventQueue


def test_events_run_in_the_order_of_time_then_of_planning():
    """Earlier events run first, equal ones in the order in which they were planned."""
    queue = EventQueue()
    seen = []
    queue.at(20, seen.append, "c")
    queue.at(10, seen.append, "a")
    queue.at(10, seen.append, "b")
    queue.run_until(15)
    assert (seen, queue.now) == (["a", "b"], 15)
    queue.run_until(30)
    assert (seen, queue.now, queue.done) == (["a", "b", "c"], 30, 3)


def test_an_event_in_the_past_runs_at_once():
    """Time never goes back: what is planned for the past happens now."""
    queue = EventQueue()
    queue.run_until(100)
    times = []
    queue.at(50, lambda: times.append(queue.now))
    queue.run_until(100)
    assert times == [100]
