// Server-sent events out of a response's body, a list for each piece that arrives.

export async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      kept += value;
      const end = kept.lastIndexOf("\n\n");
      if (end < 0) {
        yield []; // something came, if not yet all of it
        continue;
      }
      const whole = kept.slice(0, end).replaceAll("\r", "");
      kept = kept.slice(end + 2);
      yield whole.split("\n\n").map(parsed);
    }
  } finally {
    reader.cancel().catch(() => {}); // nobody listens to a stream that has ended
  }
}

function parsed(block) {
  const message = { event: "", data: "", id: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "data") message.data += message.data ? `\n${value}` : value;
    else if (field in message) message[field] = value;
  }
  return message;
}
