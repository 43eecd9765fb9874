// Gradio's server closes the stream of answers once nothing is pending. An event that is sent while that news is on its
// way believes the stream open, and its answer stays unheard until the next event. So the reply to queue/join is held
// until the stream has spoken of the event or has closed.
window.dinodemoTab = location.hash.slice(1);  // before any tab writes there, see app.py
(() => {
  const plain = window.fetch, heard = new Set(), waiting = new Set();
  const LONGEST = 3000, CLOSING = 50;  // milliseconds
  let streams = 0;

  const notify = () => waiting.forEach((check) => check());

  function watch(response) {
    const reader = response.body.getReader(), decoder = new TextDecoder();
    let text = '', counted = true;
    const ended = () => {
      if (counted) setTimeout(() => { streams -= 1; notify(); }, CLOSING);  // Gradio has read it by then
      counted = false;
    };
    streams += 1;
    const body = new ReadableStream({
      async pull(out) {
        try {
          const {done, value} = await reader.read();
          if (done) { ended(); return out.close(); }
          text = (text + decoder.decode(value, {stream: true})).slice(-1e6);
          for (const found of text.matchAll(/"event_id":"([^"]+)"/g)) heard.add(found[1]);
          out.enqueue(value);
          if (text.includes('"msg":"close_stream"')) ended();
          text = text.slice(text.lastIndexOf('\n') + 1);
          notify();
        } catch (error) { ended(); out.error(error); }
      },
      cancel(reason) { ended(); return reader.cancel(reason); },
    });
    return new Response(body, {status: response.status, statusText: response.statusText, headers: response.headers});
  }

  function settled(id) {
    return new Promise((resolve) => {
      const check = () => {
        if (streams > 0 && !heard.has(id)) return;
        waiting.delete(check);
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => { waiting.delete(check); resolve(); }, LONGEST);
      waiting.add(check);
      check();
    });
  }

  window.fetch = async (...call) => {
    const response = await plain.apply(window, call), url = String(call[0]?.url ?? call[0]);
    if (!response.ok) return response;
    if (url.includes('/queue/data') && response.body) return watch(response);
    if (url.includes('/queue/join')) {
      const {event_id: id} = await response.clone().json().catch(() => ({}));
      if (id) await settled(id);
      heard.delete(id);
      if (heard.size > 500) heard.clear();
    }
    return response;
  };
})();
