"""Answers reach the page however late the news of a closed stream is, and a server that is gone is noticed."""

from .helpers import ASSETS, upload_photo

LATE = """(() => {
  const plain = window.fetch;
  window.fetch = async (...call) => {
    const response = await plain(...call);
    if (!String(call[0]?.url ?? call[0]).includes('/queue/data')) return response;
    const read = new TextDecoder(), write = new TextEncoder();
    const body = response.body.pipeThrough(new TransformStream({async transform(chunk, out) {
      const text = read.decode(chunk, {stream: true}), at = text.indexOf('data: {"msg":"close_stream"');
      if (at < 0) return out.enqueue(chunk);
      if (at > 0) out.enqueue(write.encode(text.slice(0, at)));
      await new Promise((done) => setTimeout(done, 600));
      window.late = (window.late || 0) + 1;
      out.enqueue(write.encode(text.slice(at)));
    }}));
    return new Response(body, {status: response.status, headers: response.headers});
  };
})()"""


def test_an_answer_is_heard_when_the_stream_before_closes_late(browser, app_url):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(LATE)
    page.goto(app_url)
    page.wait_for_selector("#cost >> text=a picture here")
    upload_photo(page, ASSETS / "cat_chelsea.jpg")  # one event runs the network, the next one draws
    assert page.evaluate("window.late") > 0
    context.close()


def test_a_server_that_is_gone_is_noticed(browser, app_url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(app_url)
    page.route("**/healthz", lambda route: route.abort())
    page.wait_for_selector("#page-banner >> text=does not answer")
    page.unroute("**/healthz")
    page.wait_for_selector("#page-banner >> text=is back")
    context.close()


def test_a_file_that_is_no_picture_is_refused_with_its_name(page, tmp_path):
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7")
    page.set_input_files("#attention-photo input[type=file]", str(tmp_path / "paper.pdf"))
    page.wait_for_selector("#page-banner >> text=paper.pdf is not a picture")
