"""Where did the decision come from? Attribution with exact rules, audited, judged and tied to the dissection."""
